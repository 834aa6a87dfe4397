// Light, dark, or as the system says; remembered in this browser.

const KEY = 'taskprof.theme';
const THEMES = ['auto', 'light', 'dark'];

export function currentTheme() {
  const kept = localStorage.getItem(KEY);
  return THEMES.includes(kept) ? kept : 'auto';
}

function apply(theme) {
  document.documentElement.dataset.theme = theme;
}

/** Goes to the next theme and names it. */
export function nextTheme() {
  const theme = THEMES[(THEMES.indexOf(currentTheme()) + 1) % THEMES.length];
  localStorage.setItem(KEY, theme);
  apply(theme);
  return theme;
}

export const startTheme = () => apply(currentTheme());
