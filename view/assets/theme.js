// Dark or light, as chosen before, or as the system is. Runs before the page is drawn, so that it does not flash.
let chosen = null;
try {
  chosen = localStorage.getItem('theme');
} catch {
  // Storage may be forbidden: then the system decides.
}
if (chosen) document.documentElement.dataset.theme = chosen;
