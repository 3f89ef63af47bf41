import { status } from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import { idsOf, receipt, remoteError, startSpool, unavailable } from './support.js';

describe('a sender', () => {
  it('sends the first attempt after half a second, with those that were recorded meanwhile', () => {
    const { clock, spool, service } = startSpool();
    const receipts = [receipt(), receipt(2)];
    for (const one of receipts) spool.record(one);
    clock.advance(499);
    expect(service.streams).toHaveLength(0);
    clock.advance(1);
    expect(service.last.ids).toEqual(idsOf(...receipts));
    expect(service.last.requests[0]?.records[0]).toMatchObject({ agent: 'trader', run_id: 'run-1', revision: 7n });
  });

  it('sends a full batch at once, and never more than 200 attempts in one', () => {
    const { spool, service } = startSpool();
    spool.record(receipt(450));
    expect(service.last.requests[0]?.records).toHaveLength(200);
    service.last.acknowledge();
    expect(service.last.requests.map(({ records }) => records.length)).toEqual([200, 200, 50]);
  });

  it('has at most four batches without an acknowledgement', () => {
    const { clock, spool, service } = startSpool();
    spool.record(receipt(2_000));
    clock.advance(500);
    expect(service.last.requests).toHaveLength(4);
    service.last.acknowledge();
    expect(service.last.requests).toHaveLength(5);
    expect(service.last.requests.map(({ sequence }) => sequence)).toEqual([1n, 2n, 3n, 4n, 5n]);
  });

  it('sends what a broken stream has not acknowledged again, with a higher sequence', () => {
    const { clock, spool, service, sender } = startSpool();
    spool.record(receipt(600));
    clock.advance(500);
    const [first] = service.streams;
    first?.acknowledge();
    first?.end(unavailable());
    clock.advance(999);
    expect(service.streams).toHaveLength(1);
    clock.advance(1);
    expect(service.last.ids).toEqual(first?.ids.slice(200));
    expect(service.last.requests.map(({ sequence }) => sequence)).toEqual([4n, 5n]);
    service.last.acknowledge(2);
    expect(sender.acknowledged).toBe(600);
    expect(sender.isDone).toBe(true);
  });

  it('waits as long as the service asks for', () => {
    const { clock, spool, service } = startSpool();
    spool.record(receipt(200));
    service.last.end(Object.assign(unavailable(), { retryAfterMs: 7_000 }));
    clock.advance(6_999);
    expect(service.streams).toHaveLength(1);
    clock.advance(1);
    expect(service.streams).toHaveLength(2);
  });

  it('ignores an acknowledgement of another batch', () => {
    const { spool, service, sender } = startSpool();
    spool.record(receipt(200));
    service.last.observer.acknowledged({ sequence: 9n, revision: 1n, new_count: 200, known_count: 0, rejected: [] });
    expect(sender.acknowledged).toBe(0);
  });

  it('ends an idle stream, and opens another one for the next attempt', () => {
    const { clock, spool, service } = startSpool();
    spool.record(receipt(200));
    service.last.acknowledge();
    clock.advance(5_000);
    expect(service.last.isEnded).toBe(true);
    const late = receipt();
    spool.record(late);
    service.last.end();
    clock.advance(500);
    expect(service.streams).toHaveLength(2);
    expect(service.last.ids).toEqual(idsOf(late));
  });

  it('ends a stream that acknowledges nothing for 30 seconds', () => {
    const { clock, spool, service } = startSpool();
    spool.record(receipt(200));
    clock.advance(30_000);
    expect(service.streams[0]?.isAborted).toBe(true);
    clock.advance(1_000);
    expect(service.last.ids).toHaveLength(200);
  });

  it.each([
    [status.PERMISSION_DENIED, 'agentllm token create --role agent'],
    [status.UNAUTHENTICATED, 'agentllm token create --role agent'],
    [status.UNIMPLEMENTED, 'older than this client'],
  ])('warns once when the service refuses with status %s, and tries again after a minute', (code, remedy) => {
    const { clock, spool, service, warned, messages } = startSpool();
    spool.record(receipt(200));
    for (let at = 0; at < 5; at++) {
      service.last.end(remoteError(code));
      spool.record(receipt(200));
      clock.advance(60_000);
    }
    expect(service.streams).toHaveLength(6);
    expect(warned).toEqual(['USAGE_NOT_RECORDED']);
    expect(messages[0]).toContain(remedy);
    while (service.last.acknowledged < service.last.requests.length) service.last.acknowledge();
    expect(new Set(service.last.ids).size).toBe(1_200);
  });

  it('drops only the attempt because of which the service rejects a batch', () => {
    const { clock, spool, service, sender, warned } = startSpool();
    const receipts = Array.from({ length: 10 }, () => receipt());
    const [bad] = idsOf(receipts[3] as ReturnType<typeof receipt>);
    for (const one of receipts) spool.record(one);
    clock.advance(500);
    for (let round = 0; round < 20 && !sender.isDone; round++) {
      const stream = service.last;
      while (stream.acknowledged < stream.requests.length) {
        const { records = [] } = stream.requests[stream.acknowledged] ?? {};
        if (records.some(({ attempt }) => attempt?.attempt_id === bad)) break;
        stream.acknowledge();
      }
      if (!sender.isDone) stream.end(remoteError(status.INVALID_ARGUMENT, 'INVALID_FIELDS'));
      clock.advance(1_000);
    }
    expect(sender.isDone).toBe(true);
    expect([sender.acknowledged, sender.rejected]).toEqual([9, 1]);
    expect(warned).toEqual(['USAGE_LOST']);
  });

  it('counts attempts that the service rejects, and warns with its reason', () => {
    const { spool, service, sender, messages } = startSpool();
    spool.record(receipt(200));
    const message = 'the caller may not record agent other';
    service.last.acknowledge(1, [{ rejection: 'USAGE_REJECTION_AGENT_NOT_ALLOWED', message }]);
    expect([sender.acknowledged, sender.rejected]).toEqual([199, 1]);
    expect(messages).toEqual([`Usage is lost: the service rejects attempts: ${message}`]);
    expect(sender.isDone).toBe(true);
  });

  it('reports dropped attempts to the service, once for each agent', () => {
    const { clock, spool, service, sender } = startSpool({ maxMemoryRecords: 1_000 });
    spool.record(receipt(1_003));
    spool.record(receipt(4, 'analyst'));
    clock.advance(500);
    for (let at = 0; at < 10; at++)
      if (service.last.requests.length > service.last.acknowledged) service.last.acknowledge();
    const losses = service.last.requests.flatMap((request) => request.losses);
    expect(losses.map(({ agent, attempts }) => [agent, attempts])).toEqual([
      ['trader', 3n],
      ['analyst', 4n],
    ]);
    expect(sender.isDone).toBe(true);
    expect(spool.dropped).toBe(7);
  });
});

describe('flush', () => {
  it('sends at once and resolves when everything is acknowledged', async () => {
    const { spool, service, sender } = startSpool();
    spool.record(receipt(3));
    const flushed = sender.flush(2_000);
    expect(service.last.ids).toHaveLength(3);
    service.last.acknowledge();
    await expect(flushed).resolves.toBe(true);
  });

  it('resolves with false when its time is over', async () => {
    const { clock, spool, sender } = startSpool();
    spool.record(receipt());
    const flushed = sender.flush(2_000);
    clock.advance(2_000);
    await expect(flushed).resolves.toBe(false);
  });

  it('does not wait for the pause after a failure', async () => {
    const { clock, spool, service, sender } = startSpool();
    spool.record(receipt(200));
    service.last.end(unavailable());
    const flushed = sender.flush(2_000);
    expect(service.streams).toHaveLength(2);
    service.last.acknowledge();
    await expect(flushed).resolves.toBe(true);
    clock.advance(60_000);
  });

  it('resolves with false as soon as the service refuses', async () => {
    const { spool, service, sender } = startSpool();
    spool.record(receipt());
    const flushed = sender.flush(60_000);
    service.last.end(remoteError(status.PERMISSION_DENIED));
    await expect(flushed).resolves.toBe(false);
  });
});
