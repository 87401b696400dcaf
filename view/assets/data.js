// What the server knows: fetched once, and kept. Tables come as typed arrays over the bytes of the answer.
import { useEffect, useState } from './vendor/preact.js';

/** What is said when the server does not answer. */
export const SILENT = 'The server does not answer: was `tinyres view` ended? Start it again, and open its link.';

/** An answer of the server that is no success. */
export class Failure extends Error {}

async function ask(path) {
  let answer;
  try {
    answer = await fetch(path);
  } catch {
    throw new Failure(SILENT);
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  throw new Failure(body.error ?? `${path}: status ${answer.status}`);
}

const kept = new Map();

/** The result of `make`, made once for each `key`. A failure is not kept. */
export function once(key, make) {
  if (!kept.has(key)) {
    const promise = make();
    kept.set(key, promise);
    promise.catch(() => kept.delete(key));
  }
  return kept.get(key);
}

/** Forgets what follows from runs, since they have other results by now. Of the set all is kept. */
export function forget() {
  for (const key of kept.keys()) {
    if (/^\/api\/(set|run|compare)|^layout/.test(key)) kept.delete(key);
  }
}

/** The text of an answer, as it is now. */
export const answer = async (path) => (await ask(path)).text();
export const json = (path) => once(path, async () => (await ask(path)).json());
export const bytes = async (path) => (await ask(path)).arrayBuffer();
export const table = (path) => once(path, async () => decode(await bytes(path)));

/** The table that the server makes meanwhile: until it is ready, `tell` is given the fraction that is done. */
export async function awaited(path, tell) {
  for (;;) {
    const answer = await ask(path);
    if (answer.status === 200) return decode(await answer.arrayBuffer());
    tell((await answer.json()).done);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

const ARRAYS = { u8: Uint8Array, u32: Uint32Array, i32: Int32Array, f32: Float32Array };

/** The columns of a table, by name: arrays, or functions that give the text of a row. See view/src/table.rs. */
export function decode(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const columns = { rows: head.rows };
  let at = 8 + length;
  for (const { name, type, bytes } of head.columns) {
    if (type === 'text') {
      columns[name] = texts(new Uint8Array(buffer, at, bytes), columns[`${name}.ends`]);
    } else {
      const array = ARRAYS[type];
      columns[name] = new array(buffer, at, bytes / array.BYTES_PER_ELEMENT);
    }
    at += Math.ceil(bytes / 8) * 8;
  }
  return columns;
}

function texts(utf8, ends) {
  const decoder = new TextDecoder();
  const whole = decoder.decode(utf8);
  // As many letters as bytes: all of them are ASCII, and a slice is quick.
  const ascii = whole.length === utf8.length;
  const start = (row) => (row === 0 ? 0 : ends[row - 1]);
  return (row) =>
    ascii ? whole.slice(start(row), ends[row]) : decoder.decode(utf8.subarray(start(row), ends[row]));
}

/** What `make` promises, for a component: `{ value }`, `{ error }`, or `{}` until then. */
export function usePromise(make, keys) {
  const [result, set] = useState({});
  useEffect(() => {
    let current = true;
    set({});
    Promise.resolve(make()).then(
      (value) => current && set({ value }),
      (error) => {
        if (current) set({ error: error.message });
        if (!(error instanceof Failure)) console.error(error);
      },
    );
    return () => {
      current = false;
    };
  }, keys);
  return result;
}

/** The words of a class, or its id where it has none; and the first of them. */
export const words = (set, label) => set.classes[label]?.name || set.classes[label]?.id || 'no label';
export const short = (set, label) => words(set, label).split(',')[0];
