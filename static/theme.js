// Before the first paint: the theme that this reader chose, if any; else the system decides.
try {
  const kept = localStorage.getItem("theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
} catch { /* storage may be closed to us; the system's choice holds */ }
