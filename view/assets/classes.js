// The page of classes: how well each is recognised, and how far confidences can be trusted.
import { html, useMemo } from './vendor/preact.js';
import { short, usePromise, words } from './data.js';
import { analysisOf } from './loaded.js';
import { Message, SortedTable, count, percent } from './parts.js';
import { go, link } from './state.js';

function Calibration({ calibration }) {
  const bins = calibration.bins.length;
  const side = 220;
  const most = Math.max(1, ...calibration.bins.map(([images]) => images));
  return html`<figure class="calibration">
    <svg viewBox=${`-34 -8 ${side + 48} ${side + 44}`} role="img" aria-label=${`Reliability: expected calibration error ${percent(calibration.error)}`}>
      ${[0, 0.25, 0.5, 0.75, 1].map(
        (at) => html`<line x1="0" x2=${side} y1=${side * (1 - at)} y2=${side * (1 - at)} class="grid-line" />
          <text x="-6" y=${side * (1 - at) + 4} text-anchor="end">${100 * at}%</text>
          <text x=${side * at} y=${side + 16} text-anchor="middle">${100 * at}%</text>`,
      )}
      <line x1="0" y1=${side} x2=${side} y2="0" class="ideal" />
      ${calibration.bins.map(([images, confidence, accuracy], at) => {
        if (images === 0) return null;
        const width = side / bins;
        return html`<rect x=${at * width + 1} width=${width - 2} y=${side * (1 - accuracy)} height=${side * accuracy} class="bin"
          style=${{ fillOpacity: 0.35 + 0.65 * Math.sqrt(images / most) }}>
          <title>${`${count(images)} pictures: confidence ${percent(confidence, 1)}, right ${percent(accuracy, 1)}`}</title></rect>`;
      })}
      <text x=${side / 2} y=${side + 32} text-anchor="middle">confidence</text>
    </svg>
    <figcaption>How often predictions of a confidence are right. On the line, confidence is what it says; expected
      calibration error <b>${percent(calibration.error)}</b>.</figcaption>
  </figure>`;
}

export function ClassesPage({ set, state, split, run }) {
  const { value: analysis, error } = usePromise(() => analysisOf(set, run, split), [run, split]);
  const rows = useMemo(() => {
    if (!analysis) return [];
    const worst = new Map();
    for (const [label, predicted, number] of analysis.cells) {
      if (label !== predicted && number > (worst.get(label)?.[1] ?? 0)) worst.set(label, [predicted, number]);
    }
    return analysis.classes.map(([images, predicted, right], label) => ({
      label,
      images,
      predicted,
      accuracy: right / images,
      precision: right / predicted,
      worst: worst.get(label),
    }));
  }, [analysis]);
  if (error) return html`<${Message} error=${error} />`;
  if (!analysis) return html`<${Message} text="Loading …" />`;
  const to = (changes) => link({ page: 'grid', split, run, ...changes }, {});
  const bar = (value) =>
    Number.isNaN(value) ? '–' : html`<span class="meter"><i style=${{ width: percent(value) }}></i></span>${percent(value, 1)}`;
  return html`<main class="page">
    <div class="page-head"><h1>Classes</h1>
      <p class="soft">${count(analysis.images)} pictures of ${split} · top-1 <b>${percent(analysis.top1)}</b> · loss <b>${analysis.loss.toFixed(4)}</b></p></div>
    <div class="two classes">
      <div class="scroll"><${SortedTable} label="Classes" rows=${rows} sort=${state.sort ?? 'accuracy'} down=${state.down === 'yes'}
        onsort=${(sort, down) => go({ sort, down: down ? 'yes' : null }, true)}
        columns=${[
          ['class', 'Class', (row) => words(set, row.label), (row) => html`<a href=${to({ label: row.label })} title=${words(set, row.label)}>${short(set, row.label)}</a> <code>${set.classes[row.label].id}</code>`],
          ['images', 'Pictures', (row) => row.images, (row) => count(row.images), 'number'],
          ['accuracy', 'Recognised', (row) => row.accuracy, (row) => bar(row.accuracy), 'number'],
          ['precision', 'Precision', (row) => row.precision, (row) => bar(row.precision), 'number'],
          ['predicted', 'Predicted', (row) => row.predicted, (row) => html`<a href=${to({ predicted: row.label })}>${count(row.predicted)}</a>`, 'number'],
          ['worst', 'Most often taken for', (row) => row.worst?.[1] ?? 0, (row) => row.worst && html`<a href=${to({ label: row.label, predicted: row.worst[0] })}>${short(set, row.worst[0])}</a> <span class="soft">${row.worst[1]}</span>`],
        ]} /></div>
      <${Calibration} calibration=${analysis.calibration} />
    </div>
  </main>`;
}
