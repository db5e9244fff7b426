'use strict';
// The page on which people answer. Each answer has a key, and is sent again until the server has it.

const byId = (id) => document.getElementById(id);
const VERDICTS = {
  teach: [['good', 'Good', 'g'], ['defect', 'Defect', 'd'], ['unusable', 'Unusable', 'u'], ['unsure', 'Not sure', 's']],
  restore: [['better', 'Better', 'b'], ['worse', 'Worse', 'w'], ['same', 'No difference', 'n'], ['unsure', 'Not sure', 's']],
};
VERDICTS.audit = VERDICTS.teach;
const QUEUES = { teach: 'Teach', audit: 'Audit', restore: 'Compare' };
const person = (() => {
  const known = sessionStorage.getItem('person');
  const made = known || Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(16)).join('');
  sessionStorage.setItem('person', made);
  return made;
})();

let facts = null;
let queue = 'teach';
let waiting = []; // images that were asked for
let current = null;
let given = []; // keys of this page's answers, for undo
let unsent = []; // answers that the server does not have yet
let sending = false;
let place = null; // of the defect: left, top, width and height as shares of the image's sides
let heated = false; // whether heat maps are shown, of this image and the next ones

function problem(text) {
  byId('problem').textContent = text;
  byId('problem').hidden = !text;
}

async function fetchJson(address, options) {
  const response = await fetch(address, options);
  // What else a server or one before it refuses is no judgement of the answer: it is sent again.
  if (!response.ok) throw Object.assign(new Error(await response.text()), { refused: [400, 404, 413].includes(response.status) });
  return response.json();
}

async function send() {
  if (sending) return;
  sending = true;
  while (unsent.length) {
    try {
      await fetchJson(unsent[0].to, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(unsent[0].body) });
      unsent.shift();
      problem('');
    } catch (error) {
      if (error.refused) { problem(error.message); unsent.shift(); continue; }
      problem('The server cannot be reached. This page keeps your answers and sends them again.');
      await new Promise((done) => setTimeout(done, 2000));
    }
  }
  sending = false;
  showFigures();
}

function post(to, body) {
  unsent.push({ to, body });
  return send();
}

async function showFigures() {
  if (unsent.length) return;
  const figures = await fetchJson('figures').catch(() => null);
  if (!figures) return;
  const here = figures[queue];
  byId('progress').textContent = `${here.answered} of ${here.images} images answered`;
  const { recall, precision } = figures.audit || {};
  const share = (each) => (each.value === null ? 'not known yet' : `${Math.round(100 * each.value)} %`) + ` (${Math.floor(100 * each.low)} to ${Math.ceil(100 * each.high)} %)`;
  byId('figures').textContent = recall && figures.audit.answered
    ? `From the audit, with 95 % intervals:\nshare of defects that the run finds: ${share(recall)}\nshare of flagged images that are defective: ${share(precision)}` : '';
}

// Asks for more before the images run out, so that nobody waits between two of them.
async function refill() {
  const asked = queue;
  const more = await fetchJson(`questions?queue=${asked}&person=${person}`).catch(() => []);
  if (asked !== queue) return;
  // What was answered while the server looked for more comes back with it.
  const question = (image) => `${image.number} ${image.again}`;
  const answered = given.filter((each) => each.queue === asked).map((each) => each.image);
  const known = new Set([...waiting, current, ...answered].filter(Boolean).map(question));
  waiting.push(...more.filter((image) => !known.has(question(image))));
}

async function next() {
  current = waiting.shift() || null;
  if (!current) {
    byId('question').textContent = 'Loading the image.';
    await send();
    await refill();
    current = waiting.shift() || null;
  } else if (waiting.length === 8) refill();
  show();
}

function show() {
  const picture = byId('picture');
  const map = byId('map');
  map.hidden = true;
  map.removeAttribute('src');
  byId('frame').className = '';
  byId('naming').hidden = true;
  forgetPlace();
  compare();
  byId('verdicts').hidden = !current;
  if (!current) {
    picture.removeAttribute('src');
    picture.alt = '';
    byId('question').textContent = 'No image is left in this queue, or other people are working on the rest.';
    byId('caption').textContent = '';
    return;
  }
  const shown = queue === 'restore' ? 'restored' : 'image';
  picture.alt = current.path;
  picture.src = `picture/${current.number}/${shown}`;
  if (queue === 'restore') map.src = `picture/${current.number}/image`;
  else if (current.mapped) map.src = `picture/${current.number}/map`;
  byId('question').textContent = queue === 'restore' ? 'Is this better than before?' : current.again ? 'Once more: what does this image show?' : 'What does this image show?';
  const facts = [current.path];
  if (queue !== 'restore' && !current.mapped) facts.push('no heat map');
  if (queue === 'teach') facts.push(`score ${current.score.toPrecision(4)}`, current.flagged ? 'flagged' : 'not flagged');
  byId('caption').textContent = facts.join(' · ');
  waiting.slice(0, 2).forEach((image) => { new Image().src = `picture/${image.number}/${shown}`; });
}

// What the image is similar to. Answers never wait for it; in an audit the model must not speak.
async function compare() {
  const [image, of] = [current, queue];
  byId('similar').hidden = of !== 'teach' || !image;
  byId('looks').hidden = true;
  byId('closest').replaceChildren();
  byId('similar-title').textContent = 'Closest good images';
  byId('similar-note').textContent = 'Looking for them.';
  if (of !== 'teach' || !image) return;
  const look = (each) => fetchJson(`similar/${each.number}?queue=${of}`).catch(() => ({ state: 'working' }));
  if (waiting[0]) look(waiting[0]); // it is described meanwhile
  for (;;) {
    const found = await look(image);
    if (current !== image || queue !== of) return;
    if (found.state !== 'working') return showSimilar(found);
    await new Promise((done) => setTimeout(done, 700));
    if (current !== image || queue !== of) return;
  }
}

function showSimilar(found) {
  if (found.state === 'off') {
    byId('similar').hidden = !found.problem;
    byId('similar-note').textContent = `Not shown: ${found.problem}.`;
    return;
  }
  const answered = found.kind === 'answered';
  if (!answered) byId('similar-title').textContent = 'Closest images not flagged';
  byId('similar-note').textContent = answered
    ? `Of ${found.among} images answered good.`
    : `Of the ${found.among} lowest scores. No person has called them good yet.`;
  byId('closest').replaceChildren(...found.closest.map((good) => {
    const figure = document.createElement('figure');
    const picture = Object.assign(document.createElement('img'), { src: `picture/${good.number}/small`, alt: `${answered ? 'Good image' : 'Image not flagged:'} ${good.path}` });
    const caption = Object.assign(document.createElement('figcaption'), { textContent: good.path, title: good.path });
    figure.append(picture, caption);
    return figure;
  }));
  const { hint } = found;
  if (!hint) return;
  const name = Object.assign(document.createElement('strong'), { textContent: hint.name });
  byId('looks').replaceChildren('If it is a defect, it looks like: ', name, `. ${hint.alike} of the ${hint.of} most similar named defects have this name, and ${Math.round(100 * hint.share)} % of all. This hint may be wrong.`);
  byId('looks').hidden = false;
}

function answer(verdict, defect) {
  if (!current) return;
  const key = Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(16).padStart(8, '0')).join('');
  given.push({ key, image: current, queue });
  post('answers', { key, number: current.number, queue, verdict, defect: defect || null, place: verdict === 'defect' ? place : null, who: byId('who').value });
  if (defect && !facts.defects.includes(defect)) facts.defects.push(defect);
  next();
}

function undo() {
  const last = given.pop();
  if (!last) return;
  post('withdraw', { key: last.key });
  if (last.queue !== queue) choose(last.queue, false);
  if (current) waiting.unshift(current);
  current = last.image;
  show();
}

function nameDefect() {
  const names = byId('names');
  names.replaceChildren(...facts.defects.map((name) => Object.assign(document.createElement('option'), { value: name })));
  byId('known').replaceChildren(...facts.defects.slice(0, 9).map((name, index) => {
    const button = Object.assign(document.createElement('button'), { type: 'button', textContent: `${index + 1}  ${name}` });
    button.addEventListener('click', () => answer('defect', name));
    return button;
  }));
  byId('naming').hidden = false;
  byId('name').value = '';
  byId('name').focus();
}

// Where the picture is within its element, which it fills on two sides only.
function findPicture() {
  const picture = byId('picture');
  const element = picture.getBoundingClientRect();
  const scale = Math.min(element.width / picture.naturalWidth, element.height / picture.naturalHeight);
  const [width, height] = [picture.naturalWidth * scale, picture.naturalHeight * scale];
  return { left: element.left + (element.width - width) / 2, top: element.top + (element.height - height) / 2, width, height };
}

function forgetPlace() {
  place = null;
  byId('place').hidden = true;
}

function drawPlace(start, event) {
  const [frame, box, mark] = [byId('frame'), findPicture(), byId('place')];
  const inside = (value) => Math.min(1, Math.max(0, value));
  const [left, right] = [start.clientX, event.clientX].map((x) => inside((x - box.left) / box.width)).sort((a, b) => a - b);
  const [top, bottom] = [start.clientY, event.clientY].map((y) => inside((y - box.top) / box.height)).sort((a, b) => a - b);
  const area = frame.getBoundingClientRect();
  Object.assign(mark.style, {
    left: `${box.left - area.left + frame.scrollLeft + left * box.width}px`,
    top: `${box.top - area.top + frame.scrollTop + top * box.height}px`,
    width: `${(right - left) * box.width}px`,
    height: `${(bottom - top) * box.height}px`,
  });
  mark.hidden = false;
  place = [left, top, right - left, bottom - top];
  if (place[2] < 0.01 || place[3] < 0.01) forgetPlace(); // a click
}

function toggleZoom(large) {
  byId('frame').classList.toggle('large', large);
  forgetPlace(); // it would lie elsewhere
}

function toggleHeat() {
  heated = !heated;
  byId('heat').setAttribute('aria-pressed', String(heated));
  showHeat();
}

function showHeat() {
  const map = byId('map');
  map.hidden = !(heated && map.getAttribute('src') && map.complete && map.naturalWidth);
}

function choose(name, ask = true) {
  queue = name;
  waiting = [];
  for (const button of byId('queues').children) button.setAttribute('aria-pressed', String(button.dataset.queue === name));
  byId('verdicts').replaceChildren(...VERDICTS[name].map(([verdict, label, key]) => {
    const button = Object.assign(document.createElement('button'), { type: 'button', textContent: `${label} (${key.toUpperCase()})` });
    button.addEventListener('click', () => (verdict === 'defect' ? nameDefect() : answer(verdict)));
    return button;
  }));
  byId('heat').textContent = name === 'restore' ? 'Before (H)' : 'Heat map (H)';
  showFigures();
  if (ask) next();
}

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'Escape') { byId('naming').hidden = true; document.activeElement.blur(); return; }
  if (!byId('naming').hidden && /^[1-9]$/.test(event.key) && !byId('name').value) {
    const name = facts.defects[Number(event.key) - 1];
    if (name) { event.preventDefault(); answer('defect', name); }
    return;
  }
  if (event.target.matches('input')) return;
  const key = event.key.toLowerCase();
  const verdict = (VERDICTS[queue].find((each) => each[2] === key) || [])[0];
  if (verdict === 'defect') { event.preventDefault(); nameDefect(); } else if (verdict) answer(verdict);
  else if (key === 'h') toggleHeat();
  else if (key === 'z') undo();
  else if (key === '+' || key === '-') toggleZoom(key === '+');
});
byId('naming').addEventListener('submit', (event) => { event.preventDefault(); answer('defect', byId('name').value.trim()); });
byId('map').addEventListener('load', showHeat);
byId('cancel').addEventListener('click', () => { byId('naming').hidden = true; });
byId('heat').addEventListener('click', toggleHeat);
byId('zoom').addEventListener('click', () => toggleZoom());
byId('frame').addEventListener('pointerdown', (start) => {
  if (queue === 'restore' || !current || start.button) return;
  const draw = (event) => drawPlace(start, event);
  start.preventDefault();
  byId('frame').addEventListener('pointermove', draw);
  const end = () => {
    byId('frame').removeEventListener('pointermove', draw);
    ['pointerup', 'pointercancel'].forEach((kind) => window.removeEventListener(kind, end));
    if (!byId('naming').hidden) byId('name').focus(); // what is typed next is a name
  };
  ['pointerup', 'pointercancel'].forEach((kind) => window.addEventListener(kind, end));
});
byId('undo').addEventListener('click', undo);
byId('picture').addEventListener('load', () => {
  const picture = byId('picture');
  byId('frame').classList.toggle('small-image', Math.max(picture.naturalWidth, picture.naturalHeight) < 200);
});
window.addEventListener('beforeunload', (event) => { if (unsent.length) event.preventDefault(); });

(async () => {
  facts = await fetchJson('facts');
  byId('all').hidden = !facts.team;
  if (facts.who) Object.assign(byId('who'), { value: facts.who, disabled: true });
  byId('run').textContent = `${facts.folder} · ${facts.model || 'model'}${facts.version ? `, version ${facts.version}` : ''}`;
  byId('run').title = byId('run').textContent; // the header is one line, so that the image stays where it is
  byId('queues').replaceChildren(...facts.queues.map((name) => {
    const button = Object.assign(document.createElement('button'), { type: 'button', textContent: QUEUES[name] });
    button.dataset.queue = name;
    button.addEventListener('click', () => { button.blur(); choose(name); });
    return button;
  }));
  choose(facts.queues[0]);
  setInterval(showFigures, 15000); // others answer, too
})();
