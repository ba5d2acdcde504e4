// An Express site whose every page is a list of verbs, carried out in order on req.session.
// sides.py has the same site in Python, and the browser that visits both.
"use strict";

const express = require("express");
const session = require("express-session");
const { RedisStore } = require("connect-redis");
const { createClient } = require("redis");

const done = (start) =>
  new Promise((resolve, reject) => start((error) => (error ? reject(error) : resolve())));

const verbs = {
  data: ({ session: { cookie, minisession, ...data } }) => data,
  put: ({ session }, key, value) => void (session[key] = value),
  drop: ({ session }, key) => void delete session[key],
  login: async (req, user) => {
    await verbs.regenerate(req);
    req.session.user = user;
  },
  logout: (req) => done((callback) => req.session.destroy(callback)),
  regenerate: (req) => done((callback) => req.session.regenerate(callback)),
  renew: async (req) => {
    const kept = { ...req.session };
    await verbs.regenerate(req);
    Object.assign(req.session, kept);
  },
  save: (req) => done((callback) => req.session.save(callback)),
  reload: (req) => done((callback) => req.session.reload(callback)),
  touch: (req) => void req.session.touch(),
  remember: ({ session }, seconds) => void (session.cookie.maxAge = seconds && seconds * 1000),
  left: ({ session }) => session.cookie.maxAge && session.cookie.maxAge / 1000,
  members: ({ session }) => {
    const names = new Set();
    for (let at = session; at; at = Object.getPrototypeOf(at)) {
      Object.getOwnPropertyNames(at).forEach((name) => names.add(name));
    }
    return [...names].filter((name) => !Object.keys(session).includes(name));
  },
  meanwhile: async (_, port, headers, page) => {
    const request = { method: "POST", headers, body: JSON.stringify(page) };
    return (await fetch(`http://127.0.0.1:${port}/`, request)).json();
  },
};

// Makes a page of every path, on an app whose sessions are configured; starts, and prints its port.
function serve(app) {
  app.use(express.json({ limit: "1mb" }));
  app.use(async (req, res) => {
    const results = [];
    for (const [verb, ...rest] of req.body) results.push((await verbs[verb](req, ...rest)) ?? null);
    res.json(results);
  });
  const server = app.listen(0, "127.0.0.1", () => console.log(server.address().port));
  process.stdin.resume().on("end", () => process.exit()); // when the tests end, however they do
}

// An app whose sessions are configured by each request.  A store for each configuration: middlewares that
// share one share the last one's cookie.
function configurable(client) {
  const middlewares = new Map();
  const now = Date.now;
  return express().use((req, res, next) => {
    const text = req.get("X-Options");
    const { now: pinned, ...options } = JSON.parse(text);
    Date.now = pinned ? () => pinned * 1000 : now;
    if (!middlewares.has(text)) {
      middlewares.set(text, session({ store: new RedisStore({ client }), ...options }));
    }
    middlewares.get(text)(req, res, next);
  });
}

if (require.main === module) {
  const client = createClient({ url: process.env.REDIS_URL });
  client.connect().then(() => serve(configurable(client)));
}

module.exports = { serve };
