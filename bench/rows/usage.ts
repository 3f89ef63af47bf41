import { type Lab, runJob } from '../lab.js';
import { startPostgres } from '../postgres.js';
import type { Figure, Row } from '../row.js';
import type { LoopResult } from '../script.js';
import { startService } from '../service.js';
import { compare, interleave } from '../statistics.js';
import type { UsageJob } from '../usage_writer.js';

const BATCH = 400;
const IN_FLIGHT = 4;
/** Attempts per second on two cores. */
const TARGET = 20_000;

export const row: Row = {
  name: 'usage',
  about: 'RecordUsage with sums and idempotency on PostgreSQL against one multi-row INSERT of the same rows',
  target: 'at least half of its attempts per second, and at least 20 000 on two cores',
  async run(lab: Lab): Promise<Figure[]> {
    const postgres = await startPostgres(lab);
    const [ownUrl, referenceUrl] = [await postgres.createDatabase(), await postgres.createDatabase()];
    const service = await startService(lab, { DATABASE_URL: ownUrl });
    const other = await startService(lab, { DATABASE_URL: referenceUrl });
    await other.program.stop();
    const script = lab.startScript('usage_writer.ts');
    await script.match(/ready/);
    const job = { port: service.port, databaseUrl: referenceUrl, batch: BATCH, concurrency: IN_FLIGHT, ...lab.effort };
    const measure = async (side: UsageJob['side']) => {
      const { perSecond } = await runJob<LoopResult>(script, { ...job, side } satisfies UsageJob);
      return { perSecond: perSecond * BATCH };
    };
    const pairs = await interleave(
      lab.effort.rounds,
      () => measure('service'),
      () => measure('insert'),
    );
    const figures = compare(pairs, ({ perSecond }) => perSecond);
    return [
      {
        what: `RecordUsage, batches of ${BATCH}, ${IN_FLIGHT} in flight`,
        unit: 'attempts/s',
        ...figures,
        goal: { kind: 'ratio at least', value: 0.5 },
        note: `${figures.ours >= TARGET ? 'reaches' : 'is below'} ${TARGET} attempts/s; fsync off on both sides`,
      },
    ];
  },
};
