// The worker of inprocess.py for Node, where the verbs are explained: node worker.js NAME memory
"use strict";

const { OTHERS, answer, loggedIn, send, timed, socketTo } = require("./driving.js");

// What the requests of a scenario carry.
async function cookies(app, scenario, loops, bare) {
  if (["untouched", "login"].includes(scenario)) return Array(loops).fill(OTHERS);
  if (["regenerate", "logout"].includes(scenario) && !bare) {
    const each = [];
    while (each.length < loops) each.push(await loggedIn(app));
    return each;
  }
  return Array(loops).fill(await loggedIn(app));
}

answer(({ app, bare: without, clear }) => ({
  async request({ path, cookie, bare }) {
    const sent = [];
    const socket = socketTo((chunk) => sent.push(chunk));
    const res = await send(bare ? without : app, path, cookie ? `${OTHERS}; ${cookie}` : OTHERS, socket);
    const body = Buffer.concat(sent).toString().split("\r\n\r\n")[1];
    const [line] = [res.getHeader("Set-Cookie") ?? null].flat();
    return { status: res.statusCode, body, set_cookie: line };
  },

  // As many untimed loops before the timed ones, because V8 drops code that has been idle.
  async time({ scenario, bare, loops }) {
    const handler = bare ? without : app;
    const path = scenario === "cookie" ? "/untouched" : `/${scenario}`;
    await timed(handler, path, await cookies(app, scenario, loops, bare));
    const { cpu } = await timed(handler, path, await cookies(app, scenario, loops, bare));
    await new Promise(clear);
    return cpu;
  },
}));
