import { type Program, runJob } from '../lab.js';
import type { Figure, Row } from '../row.js';
import { inParallel, startService } from '../service.js';
import { compare, interleave } from '../statistics.js';
import type { Counted } from '../stream_client.js';
import { oneMessage, openStreams, startBareStreams, writer } from '../watching.js';

const STREAMS = 1_000;
const MESSAGES = 100;
const WRITES_AT_ONCE = 16;

export const row: Row = {
  name: 'fanout',
  about: `${MESSAGES} changes to ${STREAMS} streams, against one encoded buffer that is written to as many streams as often`,
  target: 'at least 0.80 of its messages per second',
  async run(lab) {
    const service = await startService(lab);
    const write = await writer(service.client);
    const message = await oneMessage(lab, service.port, write);
    const bare = await startBareStreams(lab, message);
    const [ours, reference] = [
      await openStreams(lab, service.port, STREAMS),
      await openStreams(lab, bare.port, STREAMS),
    ];
    const writeAll = () => inParallel(Array.from({ length: MESSAGES }), WRITES_AT_ONCE, write);
    const sendAll = async () => void bare.program.process.send({ times: MESSAGES });
    for (const round of [() => measure(ours, writeAll), () => measure(reference, sendAll)]) await round();
    const pairs = await interleave(
      lab.effort.rounds,
      () => measure(ours, writeAll),
      () => measure(reference, sendAll),
    );
    return figuresOf(message.length, pairs);
  },
};

/** Messages per second, from the first write until every stream has received all messages. */
async function measure(clients: Program, send: () => Promise<unknown>): Promise<number> {
  const counted = runJob<Counted>(clients, { kind: 'count', each: MESSAGES });
  const from = performance.timeOrigin + performance.now();
  const [{ at }] = await Promise.all([counted, send()]);
  return (STREAMS * MESSAGES * 1000) / (at - from);
}

const figuresOf = (bytes: number, pairs: Parameters<typeof compare<number>>[0]): Figure[] => [
  {
    what: `changes to ${STREAMS} streams, throughput`,
    unit: 'messages/s',
    ...compare(pairs, (perSecond) => perSecond),
    goal: { kind: 'ratio at least', value: 0.8 },
    note: `${bytes} bytes each; ours includes the ${MESSAGES} writes`,
  },
];
