// The worker of memory.py for Node, where the verbs are explained: node --expose-gc memory.js express-session memory SECONDS
"use strict";

const { OTHERS, answer, loggedIn, timed } = require("./driving.js");

const now = Date.now;
let ahead = 0; // milliseconds
Date.now = () => now() + ahead;
console.warn = () => {}; // express-session's, that this store is not for production

answer(({ app, bare, store }) => {
  let cookies = []; // of a sample of the sessions

  const held = () => Object.keys(store.sessions).length;

  function rss() {
    global.gc();
    return process.memoryUsage().rss;
  }

  async function create(sessions, every) {
    let took = 0;
    const times = Math.floor(sessions / every);
    for (let n = 0; n < times; n++) {
      took += (await timed(app, "/login", Array(every - 1).fill(OTHERS))).cpu;
      cookies.push(await loggedIn(app));
    }
    return times && took / times;
  }

  return {
    rss,

    async fill({ few, sessions, every }) {
      await create(few, 2);
      const before = rss();
      if (sessions) cookies = [];
      const took = await create(sessions, every);
      const some = Array(10000).fill(OTHERS);
      await timed(bare, "/login", some); // V8 compiles
      const plain = await timed(bare, "/login", some);
      return { create: took, bare: plain.cpu, before, after: rss() };
    },

    async read({ requests }) {
      const some = Array.from({ length: requests }, (_, n) => cookies[n % cookies.length]);
      const took = [];
      for (const handler of [app, bare]) {
        await timed(handler, "/read", some); // V8 drops code that has been idle
        took.push((await timed(handler, "/read", some)).cpu);
      }
      return took[0] - took[1];
    },

    async use({ few }) {
      let before, after;
      for (let n = 0; n < cookies.length; n += few) {
        for (const page of ["/read", "/write"]) await timed(app, page, cookies.slice(n, n + few));
        after = rss();
        before ??= after;
      }
      return (after - before) / (cookies.length - few);
    },

    forward({ seconds }) {
      ahead += seconds * 1000;
    },

    // A session that has ended is dropped when it is asked for.
    async alive() {
      const before = held();
      await timed(app, "/show", cookies.slice(0, 1));
      return held() === before;
    },

    async free({ most }) {
      const expired = held();
      let requests = 0;
      let left = expired;
      const longest = { wall: 0, cpu: 0 };
      while (left && requests < most) {
        const took = await timed(app, "/login", [OTHERS]);
        longest.wall = Math.max(longest.wall, took.wall);
        longest.cpu = Math.max(longest.cpu, took.cpu);
        requests += 1;
        if (requests % 500 === 0) left = Math.max(held() - requests, 0);
      }
      return { requests, left, longest };
    },
  };
});
