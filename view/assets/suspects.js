// The page of labels that seem wrong, and of pictures that are in the set more than once.
import { html, useMemo, useState } from './vendor/preact.js';
import { json, short, table, usePromise, words } from './data.js';
import { Grid } from './grid.js';
import { chosenIn } from './gridpage.js';
import { analysisOf, columnsOf, useSplit } from './loaded.js';
import { Message, count, fixed, percent } from './parts.js';
import { Picture, Still } from './picture.js';
import { go, link } from './state.js';

export function SuspectsPage({ set, state, split, run }) {
  const kinds = [
    ...(set.runs[run]?.predictions?.length ? [['labels', 'Labels that seem wrong']] : []),
    ...(set.runs[run]?.margins ? [['margins', 'Training labels by margin']] : []),
    ['duplicates', 'Duplicates'],
  ];
  const [show] = kinds.find(([kind]) => kind === state.show) ?? kinds[0];
  const head = html`<div class="page-head"><h1>Suspects</h1>
    <span class="joined" role="group" aria-label="Kind">${kinds.map(
      ([kind, text]) => html`<button aria-pressed=${show === kind} onClick=${() => go({ show: kind, image: null })}>${text}</button>`,
    )}</span></div>`;
  if (show === 'labels') return html`<${Labels} ...${{ set, state, split, run, head }} />`;
  if (show === 'margins') return html`<${Margins} ...${{ set, state, run, head }} />`;
  return html`<main class="page">${head}<${Duplicates} set=${set} state=${state} /></main>`;
}

/** Pictures in `order` below a sentence, to look at and to choose. `look` says what is written of each. */
function Listed({ set, state, split, run, head, data, order, look, children }) {
  const [trouble, setTrouble] = useState();
  const [revision, setRevision] = useState(0);
  const chosen = chosenIn(split);
  const choose = (image) => {
    if (!chosen.delete(image)) chosen.add(image);
    setRevision(revision + 1);
  };
  const image = state.image === undefined ? undefined : Number(state.image);
  return html`<main class="page grid-page">${head}
    <p class="soft">${children} Space chooses a picture; <a href=${link({ page: 'grid', split, run, chosen: 'yes' }, {})}>those chosen</a> can be exported.</p>
    ${trouble && html`<p class="trouble" role="alert">${trouble}</p>`}
    <${Grid} split=${split} shape=${set.shape} order=${order} size=${Number(state.size) || 128} onerror=${setTrouble} at=${image}
      look=${(image) => ({ ...look(image), chosen: chosen.has(image) })}
      onopen=${(image) => go({ image })} onchoose=${choose} version=${revision} />
    ${image >= 0 && image < data.columns.rows && html`<${Picture} ...${{ set, state, split, run, data, order, image, chosen }} onchoose=${choose} />`}
  </main>`;
}

/** Training labels, those of the smallest area under the margin first. */
function Margins({ set, state, run, head }) {
  const split = 'train';
  const data = useSplit(set, split, run, {});
  const { value: margins, error } = usePromise(() => table(`/api/run/${run}/margins`), [run]);
  const order = useMemo(() => {
    const area = margins?.area ?? [];
    const known = Uint32Array.from(area.keys()).filter((image) => !Number.isNaN(area[image]));
    return known.sort((a, b) => area[a] - area[b] || a - b);
  }, [margins]);
  const trouble = error ?? data.error;
  if (trouble) return html`<main class="page">${head}<p class="trouble" role="alert">${trouble}</p></main>`;
  if (!margins || !data.columns) return html`<${Message} text="Loading …" />`;
  const look = (image) => {
    const [label, area] = [data.columns.label[image], fixed(margins.area[image], 2)];
    return { caption: `${area} ${short(set, label)}`, label: `image ${image}, labelled ${words(set, label)}; area under the margin ${area}` };
  };
  return html`<${Listed} ...${{ set, state, split, run, head, data, order, look }}>
    ${count(order.length)} pictures of train, those of the smallest area under the margin first: over the epochs, the network found another
    class likelier than the label (Pleiss et al. 2020).<//>`;
}

function Labels({ set, state, split, run, head }) {
  const { value: analysis, error } = usePromise(() => analysisOf(set, run, split), [run, split]);
  const data = useSplit(set, split, run, {});
  const { columns, predictions } = data;
  const [order, suggested] = useMemo(() => {
    const suspects = analysis?.suspects ?? [];
    return [Uint32Array.from(suspects, ([row]) => row), new Map(suspects.map(([row, label, probability]) => [row, { label, probability }]))];
  }, [analysis]);
  if (error) return html`<main class="page">${head}<p class="trouble" role="alert">${error}</p></main>`;
  if (!analysis || !columns || !predictions) return html`<${Message} text="Loading …" />`;
  const look = (image) => {
    const { label, probability } = suggested.get(image);
    return {
      caption: `${short(set, columns.label[image])} → ${short(set, label)}`,
      label: `image ${image}, labelled ${words(set, columns.label[image])}, perhaps ${words(set, label)}; probability of the label ${percent(probability)}`,
    };
  };
  return html`<${Listed} ...${{ set, state, split, run, head, data, order, look }}>
    ${count(order.length)} of ${count(columns.rows)} pictures of ${split}, the likeliest first: the network is confident of another class than the
    label (confident learning). ${analysis.top1 < 0.5 ? `It is right for ${percent(analysis.top1, 1)} alone, so most of these are its own mistakes.` : ''}
    ${split === 'train' ? 'It was trained on these labels, so many wrong ones do not show.' : ''}
    ${analysis.has_logits ? '' : ' This needs the logits, which are not next to the predictions.'}<//>`;
}

const KINDS = { exact: 'the same pixels', near: 'nearly the same', mirrored: 'mirrored' };

function Duplicates({ set, state }) {
  const { value, error } = usePromise(async () => {
    const names = set.splits.filter(({ images }) => images > 0).map(({ name }) => name);
    const [found, ...columns] = await Promise.all([json('/api/duplicates'), ...names.map((name) => columnsOf(set, name))]);
    return { ...found, columns: Object.fromEntries(names.map((name, at) => [name, columns[at]])) };
  }, []);
  const onlyLabels = state.differ === 'yes';
  if (error) return html`<p class="trouble" role="alert">${error}</p>`;
  if (!value) return html`<p role="status">Comparing every picture with every other one …</p>`;
  const label = ([split, image]) => value.columns[split].label[image];
  const differ = ({ a, b }) => label(a) >= 0 && label(b) >= 0 && label(a) !== label(b);
  const pairs = onlyLabels ? value.pairs.filter(differ) : value.pairs;
  const differing = value.pairs.filter(differ).length;
  const over = value.pairs.filter(({ a, b }) => a[0] !== b[0]).length;
  const one = ([split, image]) => html`<a href=${link({ page: 'grid', split, image }, {})}>
    <${Still} split=${split} shape=${set.shape} image=${image} zoom=${1.5} label=${`image ${image} of ${split}`} />
    <span>${short(set, value.columns[split].label[image])}<br /><small>${split} ${image}</small></span></a>`;
  return html`
    <p class="soft"><b>${count(value.pairs.length)}</b> pairs of pictures are alike over all splits: <b>${count(over)}</b> lie in two splits, and in
      ${' '}<b>${count(differing)}</b> the labels differ. ${value.complete ? '' : 'Too many pictures for a search of near ones: only exact copies are listed.'}
      <button aria-pressed=${onlyLabels} onClick=${() => go({ differ: onlyLabels ? null : 'yes' }, true)}>Only those whose labels differ</button></p>
    <ol class="duplicates">${pairs.slice(0, 300).map(
      (pair) => html`<li class=${differ(pair) ? 'differ' : ''}>${one(pair.a)}${one(pair.b)}
        <p>${KINDS[pair.likeness]}${differ(pair) ? html`<br /><b class="wrong">labels differ</b>` : ''}</p></li>`,
    )}</ol>
    ${pairs.length > 300 && html`<p class="soft">The first 300 of ${count(pairs.length)}.</p>`}`;
}
