// Shows how a run goes on without loading the page again. Without it, the page has a link to do so.
"use strict";
(() => {
  const live = document.querySelector("[data-live]");
  if (!live) return;
  const fail = 10;
  let failures = 0;
  const look = async () => {
    try {
      const answer = await fetch(live.dataset.live, {
        headers: { "X-Fragment": "1" },
        redirect: "error",
        signal: AbortSignal.timeout(10000),
      });
      if (!answer.ok) throw new Error(String(answer.status));
      const text = await answer.text();
      failures = 0;
      if (text !== live.dataset.shown) {
        live.dataset.shown = text;
        live.innerHTML = text;
      }
      const state = live.querySelector("[data-ended]");
      if (state) {
        // The password is in the page itself, which is asked for once it is there.
        location.replace(location.pathname);
        return;
      }
    } catch {
      failures += 1;
      if (failures >= fail) {
        // What is shown may be true no more: the page itself says what there is.
        location.reload();
        return;
      }
    }
    setTimeout(look, 1000);
  };
  setTimeout(look, 1000);
})();
