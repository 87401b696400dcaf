// The page: header, tabs, and the page that the address names.
import { html, render, useEffect, useState } from './vendor/preact.js';
import { SILENT, answer, forget, json } from './data.js';
import { GridPage } from './gridpage.js';
import { columnsOf } from './loaded.js';
import { go, link, read, useAddress } from './state.js';

/** Pages: title, the least number of runs for which it is offered, and what fetches it when it is first shown. */
const PAGES = {
  grid: ['Pictures', 0],
  confusion: ['Confusion', 1, () => import('./confusion.js').then((page) => page.ConfusionPage)],
  classes: ['Classes', 1, () => import('./classes.js').then((page) => page.ClassesPage)],
  runs: ['Runs', 1, () => import('./runs.js').then((page) => page.RunsPage)],
  compare: ['Compare', 2, () => import('./compare.js').then((page) => page.ComparePage)],
  suspects: ['Suspects', 0, () => import('./suspects.js').then((page) => page.SuspectsPage)],
  map: ['Map', 1, () => import('./map.js').then((page) => page.MapPage)],
};
/** The pages that are there. */
const fetched = new Map([['grid', GridPage]]);

/** The component of the page `name`; undefined until it is there. */
function usePage(name) {
  const [error, setError] = useState();
  const [, draw] = useState();
  useEffect(() => {
    setError();
    if (fetched.has(name)) return;
    PAGES[name][2]().then(
      (component) => {
        fetched.set(name, component);
        draw(name);
      },
      () => setError(SILENT),
    );
  }, [name]);
  return { Page: fetched.get(name), error };
}

function Theme() {
  const root = document.documentElement;
  const [dark, set] = useState(root.dataset.theme === 'dark');
  useEffect(() => {
    const changed = () => set(root.dataset.theme === 'dark');
    addEventListener('theme', changed);
    return () => removeEventListener('theme', changed);
  }, []);
  const change = () => {
    root.dataset.theme = dark ? 'light' : 'dark';
    try {
      localStorage.setItem('theme', root.dataset.theme);
    } catch {
      // Then it is not remembered.
    }
    dispatchEvent(new Event('theme'));
  };
  return html`<button class="icon" onClick=${change} aria-label=${dark ? 'Use light colours' : 'Use dark colours'}
    title=${dark ? 'Light' : 'Dark'}>${dark ? '☀' : '☾'}</button>`;
}

function Choice({ label, value, options, onchange }) {
  return html`<label class="choice"><span>${label}</span>
    <select value=${value} onChange=${(event) => onchange(event.target.value)}>
      ${options.map(([value, text]) => html`<option value=${value}>${text}</option>`)}
    </select></label>`;
}

function Header({ set, state, split, run }) {
  // On a small screen the tabs scroll.
  useEffect(() => document.querySelector('nav [aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'nearest' }), [state.page]);
  const tabs = Object.entries(PAGES).filter(([, [, runs]]) => set.runs.length >= runs);
  return html`
    <header>
      <a class="brand" href=${link({}, { page: 'grid' })}><img src="/icon.svg" alt="" width="20" height="20" />tinyres</a>
      <nav aria-label="Pages">
        ${tabs.map(
          ([page, [title]]) =>
            html`<a href=${link({}, { page, split: state.split, run: state.run })}
              aria-current=${page === state.page ? 'page' : undefined}>${title}</a>`,
        )}
      </nav>
      <div class="choices">
        <${Choice} label="Split" value=${split} onchange=${(split) => go({ split, image: null })}
          options=${set.splits.map(({ name, images }) => [name, `${name} · ${images.toLocaleString('en')}`])} />
        ${set.runs.length > 0 &&
        html`<${Choice} label="Run" value=${run} onchange=${(run) => go({ run })}
          options=${set.runs.map(({ name }, at) => [at, name])} />`}
        <${Theme} />
      </div>
    </header>`;
}

/** Milliseconds between two looks for new results. */
const LOOK = 3000;

/** The set and the runs, `version` counts up when a run has other results than before. */
function useSite() {
  const [site, setSite] = useState({ version: 0 });
  useEffect(() => {
    let [known, timer] = [];
    const look = async () => {
      // A server that ended is told of by the request that needs it.
      const now = await answer('/api/changes').catch(() => known);
      const isNew = known !== undefined && now !== known;
      known = now;
      if (!isNew) return;
      forget();
      const set = await json('/api/set');
      setSite(({ version }) => ({ set, version: version + 1 }));
    };
    const again = async () => {
      if (!document.hidden) await look().catch(() => {});
      timer = setTimeout(again, LOOK);
    };
    json('/api/set').then((set) => setSite((site) => ({ set, ...site })), (error) => setSite({ error: error.message }));
    again();
    return () => clearTimeout(timer);
  }, []);
  return site;
}

/** The split that an address names, or the one that is shown without. */
function splitOf(set, state) {
  const names = set.splits.filter(({ images }) => images > 0).map(({ name }) => name);
  const preferred = ['val', 'train', 'test'].find((name) => names.includes(name)) ?? names[0];
  return names.includes(state.split) ? state.split : preferred;
}

function App() {
  const state = useAddress();
  const name = state.page in PAGES ? state.page : 'grid';
  const { Page, error: missing } = usePage(name);
  const site = useSite();
  const { set, version } = site;
  const error = site.error ?? missing;
  if (error) return html`<main class="message" role="alert"><h1>tinyres view</h1><p>${error}</p></main>`;
  if (!set) return html`<main class="message"><p>Loading …</p></main>`;
  const split = splitOf(set, state);
  const run = set.runs[state.run] ? Number(state.run) : 0;
  const [title] = PAGES[name];
  document.title = `${title} · ${set.dir.split('/').at(-1)} · tinyres`;
  return html`
    <${Header} set=${set} state=${state} split=${split} run=${run} />
    ${Page
      ? html`<${Page} key=${version} set=${set} state=${state} split=${split} run=${run} />`
      : html`<main class="message"><p>Loading …</p></main>`}`;
}

// The token has done its work, and should not be seen over a shoulder.
if (new URLSearchParams(location.search).has('token')) {
  history.replaceState(null, '', location.pathname + location.hash);
}
// Asked for at once: components ask for what they need only once they are drawn, and get these.
json('/api/set').then((set) => read().page === 'grid' && columnsOf(set, splitOf(set, read()))).catch(() => {});
render(html`<${App} />`, document.getElementById('app'));
