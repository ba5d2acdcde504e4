// worker.py for Node: commands are lines of JSON on stdin, their results lines on stdout.
"use strict";

const http = require("node:http");
const readline = require("node:readline");
const { Writable } = require("node:stream");
const { make } = require("./site.js");

const { OTHERS } = JSON.parse(process.env.BENCH_SITE);

// Sends a request through a handler: node's own objects, and a socket that leads nowhere.
function send(handler, path, cookie, socket) {
  return new Promise((finish) => {
    const req = new http.IncomingMessage(socket);
    req.method = "GET";
    req.url = path;
    req.headers = { host: "www.example.com", cookie };
    const res = new http.ServerResponse(req);
    res.assignSocket(socket);
    res.once("finish", () => {
      res.detachSocket(socket);
      finish(res);
    });
    handler(req, res);
  });
}

function socketTo(write) {
  const socket = new Writable({ write: (chunk, _, done) => (write(chunk), done()) });
  socket.encrypted = true; // https, to express-session
  return socket;
}

const NOWHERE = socketTo(() => {});
const carrying = (cookie) => (cookie ? `${OTHERS}; ${cookie}` : OTHERS);
const setCookie = (res) => [res.getHeader("Set-Cookie") ?? null].flat()[0];

async function loggedIn(app) {
  const res = await send(app, "/login", OTHERS, NOWHERE);
  return carrying(setCookie(res).split(";")[0]);
}

// What the requests of a scenario carry.
async function cookies(app, scenario, loops) {
  if (["untouched", "login"].includes(scenario)) return Array(loops).fill(OTHERS);
  if (["regenerate", "logout"].includes(scenario)) {
    const each = [];
    while (each.length < loops) each.push(await loggedIn(app));
    return each;
  }
  return Array(loops).fill(await loggedIn(app));
}

async function timed(handler, path, cookies) {
  const begin = process.hrtime.bigint();
  for (const cookie of cookies) await send(handler, path, cookie, NOWHERE);
  return Number(process.hrtime.bigint() - begin) / 1e9;
}

const commands = {
  async request({ app, bare: without }, { path, cookie, bare }) {
    const sent = [];
    const socket = socketTo((chunk) => sent.push(chunk));
    const res = await send(bare ? without : app, path, carrying(cookie), socket);
    const body = Buffer.concat(sent).toString().split("\r\n\r\n")[1];
    return { status: res.statusCode, body, set_cookie: setCookie(res) };
  },

  // As many untimed loops before the timed ones, because V8 drops code that has been idle.
  async time({ app, bare: without, clear }, { scenario, bare, loops }) {
    const handler = bare ? without : app;
    const path = scenario === "cookie" ? "/untouched" : `/${scenario}`;
    await timed(handler, path, await cookies(app, scenario, loops));
    const seconds = await timed(handler, path, await cookies(app, scenario, loops));
    await new Promise(clear);
    return seconds;
  },
};

function versions() {
  const packages = ["express-session", "express"].map((name) => [name, require(`${name}/package.json`).version]);
  return Object.fromEntries([["Node.js", process.versions.node], ...packages]);
}

async function main() {
  const apps = await make(process.argv[2]);
  console.log(JSON.stringify(versions()));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { do: name, ...command } = JSON.parse(line);
    console.log(JSON.stringify(await commands[name](apps, command)));
  }
}

main();
