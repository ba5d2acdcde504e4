// Requests without a server, and a worker that sends them when it is asked to.
"use strict";

const http = require("node:http");
const readline = require("node:readline");
const { Writable } = require("node:stream");
const { make } = require("./site.js");

const { OTHERS } = JSON.parse(process.env.BENCH_SITE);

function socketTo(write) {
  const socket = new Writable({ write: (chunk, _, done) => (write(chunk), done()) });
  socket.encrypted = true; // https, to express-session
  return socket;
}

const NOWHERE = socketTo(() => {});

function send(handler, path, cookie, socket = NOWHERE) {
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

// Returns the Cookie header of a visitor who has just logged in.
async function loggedIn(app) {
  const res = await send(app, "/login", OTHERS);
  return `${OTHERS}; ${[res.getHeader("Set-Cookie")].flat()[0].split(";")[0]}`;
}

// Sends a request with each of these Cookie headers; returns how long one takes, in seconds, and its CPU time.
async function timed(handler, path, cookies) {
  const cpu = process.cpuUsage();
  const begin = process.hrtime.bigint();
  for (const cookie of cookies) await send(handler, path, cookie);
  const wall = Number(process.hrtime.bigint() - begin) / 1e9;
  const { user, system } = process.cpuUsage(cpu);
  return { wall: wall / cookies.length, cpu: (user + system) / 1e6 / cookies.length };
}

// Answers questions, which are lines of JSON, by verbs(apps).  The arguments are for make().
async function answer(verbs) {
  const [name, store, seconds] = process.argv.slice(2);
  const able = { versions, ...verbs(await make(name, store, seconds && Number(seconds))) };
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { do: verb, ...question } = JSON.parse(line);
    console.log(JSON.stringify((await able[verb](question)) ?? null));
  }
  process.exit();
}

function versions() {
  const { redis, ...others } = require("./package.json").dependencies; // exact ones
  return { "Node.js": process.versions.node, "node-redis": redis, ...others };
}

module.exports = { OTHERS, answer, loggedIn, send, socketTo, timed };
