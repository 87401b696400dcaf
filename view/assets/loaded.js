// The data of a split and of the runs that the address names, for components.
import { Failure, json, once, table, usePromise } from './data.js';
import { areas } from './filters.js';
import { layoutIn, layoutOf, parseLasso, within } from './lasso.js';

/** The columns of a split, with those that follow from them. */
export function columnsOf(set, split) {
  return once(`columns ${split}`, async () => {
    const columns = await table(`/api/split/${split}/columns`);
    columns.area = areas(columns, set.shape);
    if (columns.area.every(Number.isNaN)) delete columns.area;
    return columns;
  });
}

/** The names of a split: `name(row)`, and `lower(row)`, the same in small letters. */
export function namesOf(split) {
  return once(`names ${split}`, async () => {
    const { rows, name } = await table(`/api/split/${split}/names`);
    let small;
    const lower = (row) => {
      small ??= Array.from({ length: rows }, (_, row) => name(row).toLowerCase());
      return small[row];
    };
    return { name, lower };
  });
}

/** The predictions of a run for a split, or undefined if it has none. */
export async function predictionsOf(set, run, split) {
  const has = set.runs[run]?.predictions?.includes(split);
  return has ? table(`/api/run/${run}/predictions/${split}`) : undefined;
}

/** All of a split for the grid: `columns`, `names` where the address searches them, and `predictions` where the run has any. */
export function useSplit(set, split, run, state) {
  const { value, error } = usePromise(() => columnsOf(set, split), [split]);
  const searched = Boolean(state.q);
  const names = usePromise(() => (searched ? namesOf(split) : undefined), [split, searched]);
  const made = usePromise(() => predictionsOf(set, run, split), [run, split]);
  const other = usePromise(
    () => (state.other === undefined ? undefined : predictionsOf(set, Number(state.other), split)),
    [state.other, split],
  );
  const lasso = usePromise(async () => {
    const corners = parseLasso(state.lasso);
    return corners && within(await layoutOf(run, split, layoutIn(state)), corners);
  }, [run, split, state.lasso, state.layout]);
  const note = made.error ?? names.error ?? other.error ?? lasso.error;
  return { set, columns: value, names: names.value, error, predictions: made.value, other: other.value, inLasso: lasso.value, note };
}

/** Which images are grey, once that is asked for. */
export function useGrey(split, wanted) {
  return usePromise(async () => (wanted ? (await table(`/api/split/${split}/grey`)).grey : undefined), [split, wanted]);
}

/** What follows from the predictions of a run for a split. */
export async function analysisOf(set, run, split) {
  if (set.runs[run]?.predictions?.includes(split)) return json(`/api/run/${run}/analysis/${split}`);
  throw new Failure(`This run has no predictions for ${split}. A run that trains writes those for val when it ends;
    tinyres eval RUN SHARDS --split ${split} writes them at any time. Then they appear here.`);
}
