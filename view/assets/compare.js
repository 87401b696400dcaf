// The page that compares two runs: on which pictures they differ, on which classes, and in which settings.
import { html, useMemo } from './vendor/preact.js';
import { json, short, usePromise, words } from './data.js';
import { analysisOf } from './loaded.js';
import { Message, SortedTable, count, percent } from './parts.js';
import { go, link } from './state.js';

export function ComparePage({ set, state, split, run }) {
  const others = set.runs.map((_, at) => at).filter((at) => at !== run);
  const other = others.includes(Number(state.other)) ? Number(state.other) : others[0];
  const { value, error } = usePromise(async () => {
    if (other === undefined) return undefined;
    const [a, b] = await Promise.all([analysisOf(set, run, split), analysisOf(set, other, split)]);
    const compared = await json(`/api/compare/${run}/${other}/${split}`);
    return { compared, a, b };
  }, [run, other, split]);
  const rows = useMemo(
    () =>
      value?.a.classes.map(([images, , right], label) => {
        const [a, b] = [right / images, value.b.classes[label][2] / images];
        return { label, images, a, b, gain: b - a };
      }) ?? [],
    [value],
  );
  if (other === undefined) return html`<${Message} text="Give two runs to compare: tinyres view SHARDS --run A --run B" />`;
  const name = (at) => set.runs[at].name;
  const head = html`<div class="page-head"><h1>Compare</h1>
    <p class="soft">A is <b>${name(run)}</b>, B is</p>
    <label class="choice"><span class="sr">Run B</span><select value=${other} onChange=${(event) => go({ other: event.target.value })}>
      ${others.map((at) => html`<option value=${at}>${name(at)}</option>`)}</select></label></div>`;
  if (error) return html`<main class="page">${head}<p class="trouble" role="alert">${error}</p></main>`;
  if (!value) return html`<main class="page">${head}<p>Loading …</p></main>`;
  const { agreement, differs } = value.compared;
  const to = (changes) => link({ page: 'grid', split, run, other, ...changes }, {});
  const cell = (number, both) => html`<td class="number"><a href=${to({ both })}>${count(number)}</a></td>`;
  const delta = (value) => html`<span class=${value > 0 ? 'right' : value < 0 ? 'wrong' : ''}>${value > 0 ? '+' : ''}${(100 * value).toFixed(1)}</span>`;
  return html`<main class="page">${head}
    <div class="two compare">
      <section>
        <h2>Pictures</h2>
        ${agreement
          ? html`<table class="fourfold" aria-label="Pictures by who is right">
              <thead><tr><td></td><th>B right</th><th>B wrong</th></tr></thead>
              <tbody>
                <tr><th>A right</th>${cell(agreement.both, 'rr')}${cell(agreement.only_first, 'rw')}</tr>
                <tr><th>A wrong</th>${cell(agreement.only_second, 'wr')}${cell(agreement.neither, 'ww')}</tr>
              </tbody></table>
            <p>Top-1 of A <b>${percent(value.a.top1)}</b>, of B <b>${percent(value.b.top1)}</b>.
              McNemar's test: p = ${agreement.p_value < 0.0001 ? agreement.p_value.toExponential(1) : agreement.p_value.toFixed(4)}${
                agreement.p_value < 0.05 ? ', so chance alone hardly explains it' : ', so chance may explain it'
              }.</p>`
          : html`<p>Their predictions are for other shards: run tinyres eval on both.</p>`}
        <h2>Settings that differ</h2>
        <table aria-label="Settings that differ"><thead><tr><th>Setting</th><th>A</th><th>B</th></tr></thead>
          <tbody>${Object.entries(differs).map(([key, [a, b]]) => html`<tr><td><code>${key}</code></td><td>${a ?? '–'}</td><td>${b ?? '–'}</td></tr>`)}</tbody></table>
      </section>
      <section class="scroll"><h2>Classes</h2>
        <${SortedTable} label="Classes" rows=${rows} sort=${state.sort ?? 'gain'} down=${state.down === 'yes'}
          onsort=${(sort, down) => go({ sort, down: down ? 'yes' : null }, true)}
          columns=${[
            ['class', 'Class', (row) => words(set, row.label), (row) => html`<a href=${to({ label: row.label })}>${short(set, row.label)}</a>`],
            ['a', 'A', (row) => row.a, (row) => percent(row.a, 1), 'number'],
            ['b', 'B', (row) => row.b, (row) => percent(row.b, 1), 'number'],
            ['gain', 'B − A, points', (row) => row.gain, (row) => delta(row.gain), 'number'],
          ]} /></section>
    </div></main>`;
}
