// Runs before anything is drawn: says that scripts run, and applies the theme chosen in an earlier visit.
document.documentElement.classList.add("js");
try {
  const theme = localStorage.getItem("poise-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Files opened from a disk may have no storage; the theme of the system then applies.
}
