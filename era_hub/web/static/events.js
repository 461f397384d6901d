// @ts-check
/**
 * Server-sent events by `fetch`, since an EventSource can't send the header against
 * forged requests, and a token in the URL would end up in logs.
 */

const FIRST_PAUSE = 3_000;
const LONGEST_PAUSE = 300_000;
// Comments come every 15 seconds; without any for so long the connection is dead.
const SILENCE = 60_000;

/**
 * Listen until the login ends; connect again, with growing pauses, when the stream breaks.
 *
 * @param {string} url
 * @param {Record<string, string>} headers
 * @param {() => void} changed called after each event
 * @param {(open: boolean) => void} opened whether changes are told at present
 */
export async function listen(url, headers, changed, opened) {
  if (!(await streams(url, headers))) return;
  let last = "";
  let pause = FIRST_PAUSE;
  for (;;) {
    try {
      const resume = last ? { "Last-Event-ID": last } : {};
      for await (const text of blocks(url, { ...headers, ...resume })) {
        opened(true);
        pause = FIRST_PAUSE;
        last = /^id: (.*)$/m.exec(text)?.[1] ?? last;
        if (/^event: /m.test(text)) changed();
      }
    } catch (problem) {
      if (problem instanceof Refused) break;
    }
    opened(false);
    await new Promise((resolve) => setTimeout(resolve, pause * (0.5 + Math.random())));
    pause = Math.min(2 * pause, LONGEST_PAUSE);
  }
  opened(false);
}

class Refused extends Error {}

/**
 * Whether events come when they happen. Some proxies pass on an answer only as a whole,
 * so one that ends by itself is asked for first: its first event must come before its end.
 *
 * @param {string} url
 * @param {Record<string, string>} headers
 */
async function streams(url, headers) {
  const begin = performance.now();
  try {
    for await (const _ of blocks(`${url}?seconds=2`, headers)) {
      return performance.now() - begin < 1500;
    }
  } catch {
    // Not now, then not at all: the page asks from time to time.
  }
  return false;
}

/**
 * The blocks of a stream: events and comments.
 *
 * @param {string} url
 * @param {Record<string, string>} headers
 */
async function* blocks(url, headers) {
  const abort = new AbortController();
  let timer = setTimeout(() => abort.abort(), SILENCE);
  try {
    const response = await fetch(url, { headers, signal: abort.signal, cache: "no-store" });
    if ([401, 403].includes(response.status)) throw new Refused();
    if (!response.ok || !response.body) throw new Error(response.statusText);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), SILENCE);
      const parts = (rest + value).split("\n\n");
      rest = parts.pop() ?? "";
      for (const part of parts) yield part;
    }
  } finally {
    clearTimeout(timer);
    abort.abort();
  }
}
