// Starts the page of `kintsugi restore`: each picture before and after, with a divider between them.

function startPairs() {
  const place = byId('pairs');
  if (!place) return;
  const picture = (kind, data, alt, name = '') => element('img', { src: `data:image/${kind};base64,${data}`, alt, class: name, draggable: 'false' });
  for (const pair of readData('gallery')) {
    const after = pair.after ? [picture('webp', pair.after, '')] : [];
    if (pair.after && pair.errors) after.push(picture('png', pair.errors, '', 'errors'));
    const facts = [
      pair.error === null ? null : `error bar ${formatNumber(pair.error, 3)}${pair.unit}`,
      pair.psnr === null ? null : `PSNR ${formatNumber(pair.psnr)} dB`,
      pair.dice === null ? null : `Dice ${formatNumber(pair.dice, 3)}`,
      pair.disagreement === null ? null : `samples differ on ${formatNumber(100 * pair.disagreement, 2)} % of the pixels`,
    ].filter(Boolean);
    place.append(element('figure', { class: 'pair' },
      createCompare({ before: [picture('webp', pair.before, `${place.dataset.before}: ${pair.path}`)], after, beforeLabel: place.dataset.before, afterLabel: place.dataset.after }),
      element('figcaption', {},
        element('span', { class: 'pair-name', title: pair.path }, pair.path),
        ...facts.map((text) => element('span', { class: 'pair-fact' }, text))),
      ...(pair.samples.length ? [element('div', { class: 'samples' }, ...pair.samples.map((data, index) => picture('webp', data, `sample ${index + 1}`)))] : [])));
  }
  const box = byId('show-errors');
  box.addEventListener('change', () => place.classList.toggle('show-errors', box.checked));
}

startPairs();
startTips();
startCopying();
startPrinting();
