// Pictures before and after, each pair with a divider between them.

function startPairs() {
  const place = byId('pairs');
  const pairs = readData('gallery');
  if (!place) return null;
  const { before, after } = place.dataset;
  const figures = new Map(pairs.map((pair) => [pair.path, element('figure', { class: 'pair' },
    createCompare({
      before: [embedded('webp', pair.thumbnail, { alt: `${before}: ${pair.path}` })],
      after: pair.restored ? [embedded('webp', pair.restored), pair.heatmap ? embedded('png', pair.heatmap, { class: 'errors' }) : null].filter(Boolean) : [],
      beforeLabel: before, afterLabel: after,
    }),
    element('figcaption', {},
      element('span', { class: 'pair-name', title: pair.path }, pair.path),
      ...pair.words.map((text) => element('span', { class: 'pair-fact' }, text))),
    pair.samples.length ? element('div', { class: 'samples' }, ...pair.samples.map((data, index) => embedded('webp', data, { alt: `sample ${index + 1}` }))) : null)]));
  place.append(...figures.values());
  const box = byId('show-errors');
  box.addEventListener('change', () => place.classList.toggle('show-errors', box.checked));
  return { has: (path) => figures.has(path), show: (path) => figures.get(path).scrollIntoView({ block: 'center' }) };
}
