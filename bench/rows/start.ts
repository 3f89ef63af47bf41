import { join } from 'node:path';
import { type Lab, type Program, root } from '../lab.js';
import { startPostgres } from '../postgres.js';
import type { Figure, Row } from '../row.js';
import { spawnService } from '../service.js';
import { compare, interleave } from '../statistics.js';

/** Few rounds, because starts take seconds and vary little. */
const ROUNDS = 3;
/** The time that the service may need in addition to the engine, in seconds. */
const goal = { kind: 'difference at most', value: 1.5 } as const;

export const row: Row = {
  name: 'start',
  about: 'from the command until ready: on an embedded database and on PostgreSQL, against the start of the engine',
  target: 'at most 1.5 s more',
  async run(lab) {
    return [...(await onEmbedded(lab)), ...(await onPostgres(lab))];
  },
};

async function onEmbedded(lab: Lab): Promise<Figure[]> {
  const rounds = Math.min(ROUNDS, lab.effort.rounds);
  const ours = await directories(lab, rounds);
  const engine = await directories(lab, rounds);
  const start = () =>
    interleave(
      rounds,
      (round) => timeService(lab, { DATA_DIR: ours[round] as string }),
      (round) => timeEngine(lab, { ENGINE_DIRECTORY: join(engine[round] as string, 'pg') }),
    );
  // In the second run every directory contains the database of the first one.
  const [first, again] = [await start(), await start()];
  return [
    figureOf('start, embedded, first', first, 'from the command until ready; the reference is PGlite alone'),
    figureOf('start, embedded, again', again),
  ];
}

async function onPostgres(lab: Lab): Promise<Figure[]> {
  const rounds = Math.min(ROUNDS, lab.effort.rounds);
  const postgres = await startPostgres(lab);
  const urls: string[] = [];
  for (let round = 0; round < rounds; round++) urls.push(await postgres.createDatabase());
  const start = () =>
    interleave(
      rounds,
      (round) => timeService(lab, { DATABASE_URL: urls[round] as string }),
      (round) => timeEngine(lab, { DATABASE_URL: urls[round] as string }),
    );
  const [first, again] = [await start(), await start()];
  return [
    figureOf(
      'start, PostgreSQL, first',
      first,
      'the server is running already, so the reference is a connection with pg',
    ),
    figureOf('start, PostgreSQL, again', again),
  ];
}

const figureOf = (what: string, pairs: Awaited<ReturnType<typeof interleave<number>>>, note?: string): Figure => ({
  what,
  unit: 's',
  ...compare(pairs, (seconds) => seconds, 'difference'),
  goal,
  ...(note !== undefined && { note }),
});

const directories = (lab: Lab, count: number): Promise<string[]> =>
  Promise.all(Array.from({ length: count }, () => lab.directory()));

const timeService = (lab: Lab, env: Readonly<Record<string, string>>): Promise<number> =>
  time(() => spawnService(lab, env), /is ready after/);

function timeEngine(lab: Lab, env: Readonly<Record<string, string>>): Promise<number> {
  const { PATH } = process.env;
  const script = join(root, 'bench/engine_start.mjs');
  return time(() => lab.start(process.execPath, [script], { env: { PATH, ...env } }), /ready/);
}

/** The time from the command until the output matches, in seconds. Stops the program. */
async function time(start: () => Program, readyPattern: RegExp): Promise<number> {
  const startedAt = performance.now();
  const program = start();
  await program.match(readyPattern);
  const seconds = (performance.now() - startedAt) / 1000;
  await program.stop();
  return seconds;
}
