// express-session over HTTP: `node server.js express-session|express app|bare` prints its port, and ends with stdin.
"use strict";

const http = require("node:http");
const { make } = require("./site.js");

const [name, half] = process.argv.slice(2);

make(name).then((apps) => {
  const server = http.createServer((req, res) => {
    try {
      apps[half](req, res);
    } catch {
      res.writeHead(500).end(); // a page for which there must be a session
    }
  });
  server.listen(0, "127.0.0.1", () => console.log(server.address().port));
});
process.stdin.resume().on("end", () => process.exit());
