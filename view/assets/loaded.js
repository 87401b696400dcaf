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
    let names;
    columns.lower = (row) => {
      names ??= Array.from({ length: columns.rows }, (_, row) => columns.name(row).toLowerCase());
      return names[row];
    };
    return columns;
  });
}

/** The predictions of a run for a split, or undefined if it has none. */
export async function predictionsOf(set, run, split) {
  const has = set.runs[run]?.predictions?.includes(split);
  return has ? table(`/api/run/${run}/predictions/${split}`) : undefined;
}

/** All of a split for the grid: `columns`, and `predictions`, where the run has any. */
export function useSplit(set, split, run, state) {
  const { value, error } = usePromise(() => columnsOf(set, split), [split]);
  const made = usePromise(() => predictionsOf(set, run, split), [run, split]);
  const other = usePromise(
    () => (state.other === undefined ? undefined : predictionsOf(set, Number(state.other), split)),
    [state.other, split],
  );
  const lasso = usePromise(async () => {
    const corners = parseLasso(state.lasso);
    return corners && within(await layoutOf(run, split, layoutIn(state)), corners);
  }, [run, split, state.lasso, state.layout]);
  const note = made.error ?? other.error ?? lasso.error;
  return { set, columns: value, error, predictions: made.value, other: other.value, inLasso: lasso.value, note };
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
