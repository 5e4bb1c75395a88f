/** The page's colours for canvases, which know no light-dark(): an element computes them. */
export function coloursOf(element, names) {
  const probe = document.createElement("span");
  probe.hidden = true;
  element.append(probe);
  const found = {};
  for (const name of names) {
    probe.style.color = `var(${name})`;
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return found;
}
