// express-session's side of peers.py: the same pages, under Node's own http and under Express.
"use strict";

const express = require("express");
const session = require("express-session");

const { SECRET, USER, DATA } = JSON.parse(process.env.BENCH_SITE);
let visits = 100000;

console.warn = () => {}; // MemoryStore says in production what nobody needs to be told here

// What the pages do; each calls answer() when it is done.
const pages = {
  untouched: (req, answer) => answer(),
  read: (req, answer) => {
    if (req.session.name === undefined) throw new Error("no name");
    answer();
  },
  write: (req, answer) => {
    req.session.visits = ++visits;
    answer();
  },
  login: (req, answer) => renew(req, { ...DATA, user: USER }, answer),
  regenerate: (req, answer) => {
    const { cookie, ...data } = req.session;
    renew(req, data, answer);
  },
  logout: (req, answer) => req.session.destroy(checked(answer)),
  show: (req, answer) => {
    const { cookie, ...data } = req.session;
    answer(JSON.stringify(data));
  },
};

function renew(req, data, answer) {
  const fill = () => {
    Object.assign(req.session, data);
    answer();
  };
  req.session.regenerate(checked(fill));
}

const checked = (then) => (error) => {
  if (error) throw error;
  then();
};

const routes = (page) => Object.keys(pages).map((name) => [`/${name}`, page(name)]);
const withSessions = routes((name) => pages[name]);
const without = routes(() => pages.untouched);

// The two frameworks: (routes, middleware) => a handler for http.createServer

function node(routes, sessions) {
  const table = Object.fromEntries(routes);
  const serve = (req, res) =>
    table[req.url](req, (body = "ok") => {
      res.writeHead(200, { "Content-Type": "text/plain", "Content-Length": Buffer.byteLength(body) });
      res.end(body);
    });
  return sessions ? (req, res) => sessions(req, res, checked(() => serve(req, res))) : serve;
}

function express5(routes, sessions) {
  const app = express();
  if (sessions) app.use(sessions);
  for (const [path, page] of routes) {
    app.get(path, (req, res) => page(req, (body = "ok") => res.type("text/plain").send(body)));
  }
  return app;
}

const frameworks = { "express-session": node, express: express5 };

// Returns a promise of the handlers with sessions and without, and clear(done), which empties the memory.
// seconds is how long an unused session lives; without it sessions in memory have no end, as by default.
async function make(name, url = "memory", seconds = undefined) {
  const store = url === "memory" ? new session.MemoryStore() : await redisStore(url);
  const sessions = session({
    secret: SECRET,
    resave: false,
    saveUninitialized: false,
    cookie: { secure: "auto", sameSite: "lax", maxAge: seconds && seconds * 1000 },
    store,
  });
  const framework = frameworks[name];
  return {
    app: framework(withSessions, sessions),
    bare: framework(without),
    clear: (done) => (url === "memory" ? store.clear(done) : done()),
    store,
  };
}

async function redisStore(url) {
  const { RedisStore } = require("connect-redis");
  const client = require("redis").createClient({ url });
  await client.connect();
  return new RedisStore({ client });
}

module.exports = { make };
