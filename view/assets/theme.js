// The colours, before the first drawing: those that were chosen here before, or those of the system.
const scheme = matchMedia('(prefers-color-scheme: dark)');
function colour() {
  let chosen;
  try {
    chosen = localStorage.getItem('theme');
  } catch {
    // Then none is remembered.
  }
  document.documentElement.dataset.theme = chosen ?? (scheme.matches ? 'dark' : 'light');
  // Components that draw, or have colours of their own, do so again.
  dispatchEvent(new Event('theme'));
}
scheme.addEventListener('change', colour);
colour();
