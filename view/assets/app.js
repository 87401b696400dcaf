// The page: header, tabs, and the page that the address names.
import { html, render, useEffect, useState } from './vendor/preact.js';
import { answer, forget, json } from './data.js';
import { ClassesPage } from './classes.js';
import { ComparePage } from './compare.js';
import { ConfusionPage } from './confusion.js';
import { GridPage } from './gridpage.js';
import { MapPage } from './map.js';
import { RunsPage } from './runs.js';
import { go, link, useAddress } from './state.js';
import { SuspectsPage } from './suspects.js';

/** Pages: title, component, and the least number of runs for which it is offered. */
const PAGES = {
  grid: ['Pictures', GridPage, 0],
  confusion: ['Confusion', ConfusionPage, 1],
  classes: ['Classes', ClassesPage, 1],
  runs: ['Runs', RunsPage, 1],
  compare: ['Compare', ComparePage, 2],
  suspects: ['Suspects', SuspectsPage, 0],
  map: ['Map', MapPage, 1],
};

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
  const tabs = Object.entries(PAGES).filter(([, [, , runs]]) => set.runs.length >= runs);
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

function App() {
  const state = useAddress();
  const { set, version, error } = useSite();
  if (error) return html`<main class="message" role="alert"><h1>tinyres view</h1><p>${error}</p></main>`;
  if (!set) return html`<main class="message"><p>Loading …</p></main>`;
  const names = set.splits.filter(({ images }) => images > 0).map(({ name }) => name);
  const preferred = ['val', 'train', 'test'].find((name) => names.includes(name)) ?? names[0];
  const split = names.includes(state.split) ? state.split : preferred;
  const run = set.runs[state.run] ? Number(state.run) : 0;
  const [title, Page] = PAGES[state.page] ?? PAGES.grid;
  document.title = `${title} · ${set.dir.split('/').at(-1)} · tinyres`;
  return html`
    <${Header} set=${set} state=${state} split=${split} run=${run} />
    <${Page} key=${version} set=${set} state=${state} split=${split} run=${run} />`;
}

// The token has done its work, and should not be seen over a shoulder.
if (new URLSearchParams(location.search).has('token')) {
  history.replaceState(null, '', location.pathname + location.hash);
}
render(html`<${App} />`, document.getElementById('app'));
