// The page of runs: their figures, and curves that move while they train.
import { html, useEffect, useMemo, useRef, useState } from './vendor/preact.js';
import { go } from './state.js';
import { SortedTable, count, fixed, percent } from './parts.js';

// uPlot is a script, and no module.
await Promise.all(
  [
    ['script', { src: '/vendor/uplot.js' }],
    ['link', { rel: 'stylesheet', href: '/vendor/uplot.css' }],
  ].map(
    ([kind, attributes]) =>
      new Promise((done, failed) =>
        document.head.append(Object.assign(document.createElement(kind), attributes, { onload: done, onerror: failed })),
      ),
  ),
);

/** Colours that people with any colour vision tell apart (after Okabe and Ito 2008), on a light and on a dark ground. */
const COLORS = {
  light: ['#0072b2', '#d55e00', '#009e73', '#b0508a', '#8f6a00', '#3a8fc4', '#7a5195', '#6b6b6b'],
  dark: ['#56b4e9', '#ff9a52', '#2fcfa3', '#e59ac6', '#e6c04a', '#8ecdf5', '#b59ad6', '#b3b3b3'],
};

function colorOf(run) {
  const scheme = getComputedStyle(document.documentElement).colorScheme;
  const colors = COLORS[scheme] ?? COLORS.light;
  return colors[run % colors.length];
}

/** Charts: title, kind of line of the metrics, and its value. `smooth`: noisy enough to be smoothed. */
const CHARTS = [
  { title: 'Training loss, by step', kind: 'step', value: (line) => line.loss, smooth: true },
  { title: 'Training loss, mean of the epoch', kind: 'epoch', value: (line) => line.train_loss },
  { title: 'Validation loss', kind: 'epoch', value: (line) => line.val_loss },
  { title: 'Top-1', kind: 'epoch', value: (line) => line.top1, percent: true },
  { title: 'Top-5', kind: 'epoch', value: (line) => line.top5, percent: true },
  { title: 'Mean IoU of the boxes', kind: 'epoch', value: (line) => line.mean_iou },
  { title: 'Learning rate', kind: 'step', value: (line) => line.lr },
  { title: 'Images per second', kind: 'step', value: (line) => line.images_per_second, smooth: true },
];

/** The lines of the metrics of every run, live. */
function useMetrics(set) {
  const [state, setState] = useState({ runs: set.runs.map(() => ({ lines: [], error: undefined })), live: false });
  useEffect(() => {
    const source = new EventSource('/api/metrics');
    source.onmessage = (event) => {
      const { run, news } = JSON.parse(event.data);
      const lines = news.lines.flatMap((line) => {
        try {
          return [JSON.parse(line)];
        } catch {
          return []; // damaged: the run reads on without it, too
        }
      });
      setState(({ runs }) => ({
        live: true,
        runs: runs.map((old, at) =>
          at === run ? { lines: news.reset ? lines : old.lines.concat(lines), error: news.error } : old,
        ),
      }));
    };
    source.onerror = () => setState((old) => ({ ...old, live: false }));
    return () => source.close();
  }, []);
  return state;
}

/** Seconds of training at each step of a run, by its epochs: a function of the step. */
function clock(lines) {
  const points = [[0, 0]];
  for (const line of lines) {
    if (line.kind === 'epoch') points.push([line.step, points.at(-1)[1] + line.took]);
  }
  return (step) => {
    const after = points.findIndex(([at]) => at >= step);
    if (after <= 0) {
      if (after === 0) return 0;
      const [[a, s], [b, t]] = points.length > 1 ? points.slice(-2) : [[0, 0], [1, NaN]];
      return t + ((step - b) * (t - s)) / (b - a);
    }
    const [[a, s], [b, t]] = points.slice(after - 1, after + 1);
    return s + ((step - a) * (t - s)) / (b - a);
  };
}

/** The curve of a chart: `[x, y]`, with an exponential moving average of weight `smoothing`. */
function curve(lines, { kind, value, smooth }, time, smoothing) {
  const at = time && clock(lines);
  const [xs, ys] = [[], []];
  let [mean, weight] = [0, 0];
  for (const line of lines) {
    const y = line.kind === kind ? value(line) : undefined;
    if (typeof y !== 'number') continue;
    const x = at ? at(line.step) / 60 : line.step;
    if (!Number.isFinite(x)) continue;
    // Divided by the sum of the weights, so that the start is not drawn to zero (Kingma and Ba 2015).
    mean = smooth ? smoothing * mean + (1 - smoothing) * y : y;
    weight = smooth ? smoothing * weight + (1 - smoothing) : 1;
    xs.push(x);
    ys.push(mean / weight);
  }
  return [xs, ys];
}

function Chart({ chart, curves, hidden, log, time }) {
  const place = useRef();
  const plot = useRef();
  const data = useMemo(() => uPlot.join(curves), [curves]);
  const key = `${log} ${time} ${curves.length}`;
  useEffect(() => {
    const make = () => {
      plot.current?.destroy();
      const style = getComputedStyle(document.documentElement);
      const [ink, line] = [style.getPropertyValue('--soft').trim(), style.getPropertyValue('--line').trim()];
      const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: '11px system-ui' };
      const number = (value) => (value === null ? '–' : chart.percent ? percent(value) : String(Number(value.toPrecision(4))));
      const format = (_, values) => values.map((value) => (value === null ? '' : chart.percent ? `${Number((100 * value).toFixed(1))}%` : String(Number(value.toPrecision(3)))));
      plot.current = new uPlot(
        {
          width: place.current.clientWidth,
          height: 220,
          legend: { show: false },
          cursor: { sync: { key: 'runs' } },
          scales: { x: { time: false }, y: { distr: log ? 3 : 1 } },
          axes: [
            { ...axis, size: 30, values: (_, values) => values.map((value) => count(value)) },
            { ...axis, size: 58, values: format },
          ],
          series: [
            {},
            ...curves.map((_, run) => ({
              stroke: colorOf(run),
              width: 1.75,
              spanGaps: true,
              show: !hidden.has(run),
              points: { show: (plot, series, from, to) => to - from < 40, size: 4 },
            })),
          ],
          hooks: {
            setCursor: [
              (plot) => {
                const index = plot.cursor.idx;
                const texts = curves.map((_, run) => {
                  const value = index === null || index === undefined ? undefined : plot.data[run + 1][index];
                  return value === undefined || value === null ? undefined : number(value);
                });
                const tips = place.current?.parentElement.querySelectorAll('.tip');
                tips?.forEach((tip, run) => (tip.textContent = texts[run] ?? ''));
              },
            ],
          },
        },
        data,
        place.current,
      );
    };
    make();
    addEventListener('theme', make);
    const observer = new ResizeObserver(() => plot.current.setSize({ width: place.current.clientWidth, height: 220 }));
    observer.observe(place.current);
    return () => {
      observer.disconnect();
      removeEventListener('theme', make);
      plot.current.destroy();
      plot.current = undefined;
    };
  }, [key]);
  useEffect(() => plot.current.setData(data), [data]);
  useEffect(() => curves.forEach((_, run) => plot.current.setSeries(run + 1, { show: !hidden.has(run) })), [hidden, key]);
  const last = curves.map(([xs, ys], run) => [run, ys.at(-1), xs.at(-1)]).filter(([, y]) => y !== undefined);
  const text = last.map(([run, y, x]) => `run ${run + 1}: ${chart.percent ? percent(y) : fixed(y, 4)} at ${time ? `${fixed(x, 1)} minutes` : `step ${count(x)}`}`);
  return html`<figure class="chart">
    <figcaption><h2>${chart.title}</h2>
      <span class="tips" aria-hidden="true">${curves.map((_, run) => html`<span class="tip" style=${{ color: colorOf(run) }}></span>`)}</span>
    </figcaption>
    <div ref=${place} role="img" aria-label=${`${chart.title}: ${text.join('; ')}`} data-points=${last.length && curves.reduce((sum, [xs]) => sum + xs.length, 0)}></div>
  </figure>`;
}

export function RunsPage({ set, state }) {
  const metrics = useMetrics(set);
  const [hidden, setHidden] = useState(new Set());
  const smoothing = state.smooth === undefined ? 0.9 : Number(state.smooth);
  const time = state.x === 'time';
  const log = state.log === 'yes';
  const curves = useMemo(
    () => CHARTS.map((chart) => metrics.runs.map(({ lines }) => curve(lines, chart, time, smoothing))),
    [metrics.runs, time, smoothing],
  );
  const rows = set.runs.map((run, at) => {
    const epochs = metrics.runs[at].lines.filter(({ kind }) => kind === 'epoch');
    const scored = epochs.filter(({ top1 }) => top1 !== undefined);
    const steps = metrics.runs[at].lines.at(-1)?.step ?? 0;
    return {
      at,
      name: run.name,
      recipe: run.recipe ?? '',
      epochs: epochs.length,
      steps,
      minutes: epochs.reduce((sum, { took }) => sum + took, 0) / 60,
      loss: epochs.at(-1)?.train_loss ?? NaN,
      top1: scored.at(-1)?.top1 ?? NaN,
      best: Math.max(...scored.map(({ top1 }) => top1)),
      complete: run.complete,
      error: metrics.runs[at].error ?? run.error,
    };
  });
  const toggle = (run) => {
    const next = new Set(hidden);
    if (!next.delete(run)) next.add(run);
    setHidden(next);
  };
  const share = (value) => (Number.isFinite(value) ? percent(value) : '–');
  const shown = CHARTS.map((chart, at) => [chart, curves[at]]).filter(([, curves]) => curves.some(([xs]) => xs.length > 0));
  return html`<main class="page">
    <div class="page-head"><h1>Runs</h1>
      <span class="live ${metrics.live ? 'on' : ''}" role="status">${metrics.live ? 'live' : 'not connected'}</span>
      <span class="spring"></span>
      <span class="joined" role="group" aria-label="Horizontal axis">
        <button aria-pressed=${!time} onClick=${() => go({ x: null }, true)}>Steps</button>
        <button aria-pressed=${time} onClick=${() => go({ x: 'time' }, true)}>Minutes</button>
      </span>
      <button aria-pressed=${log} onClick=${() => go({ log: log ? null : 'yes' }, true)}>Logarithmic</button>
      <label class="choice"><span>Smoothing</span>
        <input type="range" min="0" max="0.99" step="0.01" value=${smoothing}
          onInput=${(event) => go({ smooth: event.target.value }, true)} /></label>
    </div>
    ${rows.filter(({ error }) => error).map(({ name, error }) => html`<p class="trouble" role="alert">${name}: ${error}</p>`)}
    <div class="scroll"><${SortedTable} label="Runs" rows=${rows} sort=${state.sort ?? 'run'} down=${state.down === 'yes'}
      onsort=${(sort, down) => go({ sort, down: down ? 'yes' : null }, true)}
      columns=${[
        ['run', 'Run', (row) => row.at, (row) => html`<button class="legend" aria-pressed=${!hidden.has(row.at)} onClick=${() => toggle(row.at)}>
          <i style=${{ background: colorOf(row.at) }}></i>${row.name}</button>`],
        ['recipe', 'Recipe', (row) => row.recipe, (row) => row.recipe],
        ['epochs', 'Epochs', (row) => row.epochs, (row) => count(row.epochs), 'number'],
        ['steps', 'Steps', (row) => row.steps, (row) => count(row.steps), 'number'],
        ['minutes', 'Minutes', (row) => row.minutes, (row) => fixed(row.minutes, 1), 'number'],
        ['loss', 'Training loss', (row) => row.loss, (row) => fixed(row.loss), 'number'],
        ['top1', 'Top-1', (row) => row.top1, (row) => share(row.top1), 'number'],
        ['best', 'Best top-1', (row) => row.best, (row) => share(row.best), 'number'],
        ['state', 'State', (row) => String(row.complete), (row) => (row.complete ? 'complete' : 'not at its end')],
      ]} /></div>
    <div class="charts">${shown.map(
      ([chart, curves]) => html`<${Chart} key=${chart.title} chart=${chart} curves=${curves} hidden=${hidden} log=${log} time=${time} />`,
    )}</div>
    ${shown.length === 0 && html`<p class="empty">No figures yet.</p>`}
  </main>`;
}
