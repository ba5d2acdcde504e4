// The worker of redis.py for Node, where the verbs are explained: node redis.js express-session redis://...
"use strict";

const { OTHERS, answer, loggedIn, timed } = require("./driving.js");

answer((apps) => {
  let path = "";
  let cookies = [];

  return {
    async prepare({ page, requests }) {
      path = page;
      const same = await loggedIn(apps.app);
      await timed(apps.app, "/write", Array(requests).fill(same)); // V8 drops code that has been idle
      cookies = Array(requests).fill(page === "/login" ? OTHERS : same);
      for (let n = 0; page === "/regenerate" && n < requests; n++) cookies[n] = await loggedIn(apps.app);
    },

    go: ({ bare }) => timed(bare ? apps.bare : apps.app, path, cookies),
  };
});
