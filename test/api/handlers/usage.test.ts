import { randomUUID } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { UsageRejection, UsageStatus } from '../../../gen/ts/agentllm/v1/usage.js';
import {
  RecordUsageRequest,
  RecordUsageResponse,
  StreamUsageRequest,
} from '../../../gen/ts/agentllm/v1/usage_service.js';
import { limits } from '../../../src/limits.js';
import { contract, grant, methods, pathOf, rawCaller } from '../../support/access.js';
import { startPostgres } from '../../support/postgres.js';
import { startBackend, type TestBackend } from '../../support/store.js';
import { until } from '../../support/until.js';
import { openUsageStream, usageRecord } from '../../support/usage.js';

const record = methods.find(({ name }) => name === 'RecordUsage') as (typeof methods)[number];

describe.each(['embedded', 'postgres'] as const)('RecordUsage on %s', (engine) => {
  let backend: TestBackend;
  let stop = async () => {};

  beforeAll(async () => {
    if (engine === 'embedded') {
      backend = await startBackend();
      return;
    }
    const postgres = await startPostgres();
    backend = await startBackend({ url: await postgres.createDatabase('seeded') });
    stop = () => postgres.stop();
  });
  afterAll(async () => {
    await backend.close();
    await stop();
  });

  async function send(request: Partial<RecordUsageRequest>, token?: string) {
    const bytes = Buffer.from(RecordUsageRequest.encode(RecordUsageRequest.fromPartial(request)).finish());
    const outcome = await rawCaller(backend.port)(record, { bytes, token });
    return { ...outcome, response: outcome.bytes && RecordUsageResponse.decode(outcome.bytes) };
  }

  it('stores an attempt once when it is sent twice', async () => {
    const records = [usageRecord()];
    const first = await send({ records });
    const second = await send({ records });
    expect(first.response).toMatchObject({ new_count: 1, known_count: 0, rejected_count: 0 });
    expect(second.response).toMatchObject({ new_count: 0, known_count: 1, rejected_count: 0 });
    expect(first.response?.results[0]?.cost_nano_usd).toBeGreaterThan(0n);
    expect(second.response?.results[0]?.cost_nano_usd).toBe(first.response?.results[0]?.cost_nano_usd);
  });

  it('reports an id that a batch has twice as new and known', async () => {
    const one = usageRecord();
    const { response } = await send({ records: [one, one] });
    expect(response?.results.map((result) => result.status)).toEqual([UsageStatus.NEW, UsageStatus.KNOWN]);
  });

  it('rejects invalid attempts on their own', async () => {
    const records = [
      usageRecord({ attempt: { attempt_id: 'x' } }),
      usageRecord({ attempt: { usage: { input_tokens: -1, output_tokens: 1 } } }),
      usageRecord({ attempt: { usage: { input_tokens: 2_000_000_000, output_tokens: 1 } } }),
      usageRecord({ attempt: { usage: { input_tokens: 1, input_cache_read_tokens: 2, output_tokens: 1 } } }),
      usageRecord({ attempt: { started_at: new Date(Date.now() + 600_000) } }),
      usageRecord({ agent: 'a\0b' }),
      usageRecord(),
    ];
    const { response } = await send({ records });
    expect(response).toMatchObject({ new_count: 1, rejected_count: 6 });
    expect(response?.results.map(({ rejection }) => rejection)).toEqual([
      ...new Array(4).fill(UsageRejection.INVALID),
      UsageRejection.IN_FUTURE,
      UsageRejection.INVALID,
      UsageRejection.UNSPECIFIED,
    ]);
    expect(response?.results[1]?.message).toContain('attempt.usage.input_tokens must be 0 to 100000000, not -1');
  });

  it('stores attempts of unknown agents, configs and models with an unknown cost', async () => {
    const attempt = { provider: 'missing', model_name: 'nothing', config_id: 999_999 };
    const { response } = await send({ records: [usageRecord({ agent: 'gone', agent_id: 888_888, attempt })] });
    expect(response).toMatchObject({ new_count: 1 });
    expect(response?.results[0]?.cost_nano_usd).toBeUndefined();
  });

  it('prices an attempt of a config as the config was at the reported revision', async () => {
    const trader = backend.store.state.agentNamed('trader');
    const agent_id = trader?.id ?? 0;
    const fields = { provider: 'openai', model_name: 'gpt-4' };
    const price = (input: number) => ({ cost_per_1k_input_tokens: input, cost_per_1k_output_tokens: 0 });
    const created = await backend.configs.createConfig({
      agent: { id: agent_id },
      config: { ...fields, ...price(0.001) },
    });
    const config_id = created.config?.id ?? 0;
    const updated = await backend.configs.updateConfig({ config: { id: config_id, ...price(0.002) } });
    const deleted = await backend.configs.deleteConfig({ id: config_id });
    const at = (revision: bigint, agent = agent_id) =>
      usageRecord({ agent: 'trader', agent_id: agent, revision, attempt: { ...fields, config_id } });
    const { response } = await send({
      records: [at(created.revision), at(updated.revision), at(deleted.revision), at(created.revision, 1)],
    });
    const costs = response?.results.map(({ cost_nano_usd }) => cost_nano_usd);
    expect(costs?.slice(0, 2)).toEqual([1_000_000n, 2_000_000n]);
    // The price book applies to a config that did not exist any more, and to one of another agent.
    const { response: book } = await send({ records: [usageRecord({ attempt: fields })] });
    expect(costs?.slice(2)).toEqual(new Array(2).fill(book?.results[0]?.cost_nano_usd));
  });

  it('prices attempts at the price that is valid at their start, exactly at a boundary', async () => {
    const model = { provider: 'openai', name: `boundary-${randomUUID()}` };
    const rates = (rate: bigint) => ({
      input_micro_usd_per_million: rate,
      output_micro_usd_per_million: rate,
      tiers: [{ above_input_tokens: 1000, rates: { input_micro_usd_per_million: 10n * rate } }],
    });
    await backend.providers.createModel({ model: { ...model, price: rates(1_000_000n) } });
    await backend.providers.updateModel({ model: { ...model, price: rates(2_000_000n) } });
    const state = backend.store.state;
    const [, newest] = state.pricesOf(state.model(model.provider, model.name)?.id ?? 0);
    const boundary = newest?.valid_from.getTime() ?? 0;
    const at = (ms: number, input_tokens: number) =>
      usageRecord({
        attempt: {
          provider: model.provider,
          model_name: model.name,
          started_at: new Date(ms),
          usage: { input_tokens, output_tokens: 0 },
        },
      });
    const { response } = await send({
      records: [
        at(boundary - 1, 999),
        at(boundary, 999),
        at(boundary + 1, 1000),
        at(boundary + 1, 1001),
        at(boundary - 1, 1001),
      ],
    });
    expect(response?.results.map(({ cost_nano_usd }) => cost_nano_usd)).toEqual([
      999_000n,
      1_998_000n,
      2_000_000n,
      20_020_000n,
      10_010_000n,
    ]);
  });

  it('rejects losses as a whole, with each field', async () => {
    const loss = { loss_id: 'x', agent: '', attempts: 0n, first_at: new Date(2), last_at: new Date(1) };
    const { error } = await send({ losses: [loss] });
    expect(error?.fields.sort()).toEqual([
      'losses[0].agent',
      'losses[0].attempts',
      'losses[0].last_at',
      'losses[0].loss_id',
    ]);
  });
});

describe('StreamUsage', () => {
  let backend: TestBackend;
  beforeAll(async () => {
    backend = await startBackend();
  });
  afterAll(() => backend.close());

  const batch = (sequence: bigint, count = 1) =>
    StreamUsageRequest.fromPartial({ sequence, records: Array.from({ length: count }, () => usageRecord()) });

  it('acknowledges every batch in order, and completes when the caller does', async () => {
    const { stream, received, ended } = openUsageStream(backend.port);
    for (const sequence of [1n, 2n, 5n, 6n, 7n, 8n, 9n]) stream.write(batch(sequence, 20));
    stream.end();
    expect(await ended).toMatchObject({ code: status.OK });
    expect(received.map(({ sequence }) => sequence)).toEqual([1n, 2n, 5n, 6n, 7n, 8n, 9n]);
    expect(received.every(({ new_count }) => new_count === 20)).toBe(true);
  });

  it('ends with INVALID_ARGUMENT when a sequence does not increase, after the earlier acknowledgement', async () => {
    const { stream, received, ended } = openUsageStream(backend.port);
    stream.write(batch(3n));
    stream.write(batch(3n));
    expect(await ended).toMatchObject({ code: status.INVALID_ARGUMENT });
    expect(received.map(({ sequence }) => sequence)).toEqual([3n]);
  });

  it('reports the rejected attempts of a batch', async () => {
    const { stream, received } = openUsageStream(backend.port);
    const records = [usageRecord(), usageRecord({ attempt: { provider: '' } })];
    stream.write(StreamUsageRequest.fromPartial({ sequence: 1n, records }));
    await until(() => received.length === 1);
    expect(received[0]).toMatchObject({ new_count: 1, rejected: [{ rejection: UsageRejection.INVALID }] });
  });

  it('records any number of bytes on one stream, because batches that are handled no longer count', async () => {
    const { stream, received, ended } = openUsageStream(backend.port);
    const usage = { input_tokens: 1, output_tokens: 1, raw_json: JSON.stringify({ x: 'y'.repeat(4_000) }) };
    const records = () => Array.from({ length: 200 }, () => usageRecord({ attempt: { usage } }));
    // More than the unfinished requests of one connection may have.
    const batches = Math.ceil((2 * limits.requests.connection) / (200 * 4_200));
    for (let sequence = 1; sequence <= batches; sequence++) {
      stream.write(StreamUsageRequest.fromPartial({ sequence: BigInt(sequence), records: records() }));
      await until(() => received.length >= sequence - 3);
    }
    stream.end();
    expect(await ended).toMatchObject({ code: status.OK });
    expect(received.reduce((sum, { new_count }) => sum + new_count, 0)).toBe(200 * batches);
  }, 60_000);

  it('receives no further batch from a caller that reads no acknowledgement, and continues when it reads', async () => {
    const { stream, received, ended } = openUsageStream(backend.port);
    const invalid = usageRecord({ attempt: { provider: '', model_name: '' } });
    stream.pause();
    const records = Array.from({ length: 400 }, () => invalid);
    const BATCHES = 40;
    let written = 0;
    for (let sequence = 1; sequence <= BATCHES; sequence++)
      stream.write(StreamUsageRequest.fromPartial({ sequence: BigInt(sequence), records }), () => written++);
    stream.end();
    let before = -1;
    // Until nothing more is taken from the caller.
    await until(async () => {
      const isStill = written > 0 && written === before;
      before = written;
      await new Promise((resolve) => setTimeout(resolve, 300));
      return isStill;
    });
    expect(written).toBeLessThan(BATCHES);
    stream.resume();
    expect(await ended).toMatchObject({ code: status.OK });
    expect(received.map(({ sequence }) => sequence)).toEqual(
      Array.from({ length: BATCHES }, (_, at) => BigInt(at + 1)),
    );
    expect(received.every(({ rejected }) => rejected.length === 400)).toBe(true);
  }, 60_000);

  it('ends with SLOW_CONSUMER when the caller reads nothing for long', async () => {
    const settings = limits as { slowConsumerMs: number };
    const { slowConsumerMs } = settings;
    settings.slowConsumerMs = 1_000;
    onTestFinished(() => {
      settings.slowConsumerMs = slowConsumerMs;
    });
    const { stream, ended } = openUsageStream(backend.port);
    const invalid = usageRecord({ attempt: { provider: '', model_name: '' } });
    stream.pause();
    const records = Array.from({ length: 400 }, () => invalid);
    for (let sequence = 1n; sequence <= 40n; sequence++)
      stream.write(StreamUsageRequest.fromPartial({ sequence, records }));
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    stream.resume();
    expect(await ended).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
  }, 60_000);

  it('ends at the shutdown of the service, after the batches that have arrived are acknowledged', async () => {
    const other = await startBackend();
    const { stream, received, ended } = openUsageStream(other.port);
    stream.write(batch(1n, 100));
    await until(() => received.length === 1);
    await other.close();
    expect(await ended).toMatchObject({ code: status.UNAVAILABLE });
  });

  describe('with tokens', () => {
    it('records only the agents of a token, and ends when the token is revoked', async () => {
      const own = await startBackend();
      const token = await grant(own.store, { role: 'ROLE_AGENT', agents: ['trader'] });
      const trader = own.store.state.agentNamed('trader');
      const { stream, received, ended } = openUsageStream(own.port, token.text);
      const records = [
        usageRecord({ agent: 'trader', agent_id: trader?.id ?? 0 }),
        usageRecord({ agent: 'market_analyst', agent_id: 1 }),
        usageRecord({ agent: 'trader', agent_id: own.store.state.agentNamed('market_analyst')?.id ?? 0 }),
      ];
      stream.write(StreamUsageRequest.fromPartial({ sequence: 1n, records }));
      await until(() => received.length === 1);
      expect(received[0]?.new_count).toBe(1);
      expect(received[0]?.rejected.map(({ rejection }) => rejection)).toEqual(
        new Array(2).fill(UsageRejection.AGENT_NOT_ALLOWED),
      );
      const admin = await grant(own.store, { role: 'ROLE_ADMIN' });
      const revoke = methods.find(({ name }) => name === 'RevokeToken') as (typeof methods)[number];
      const { code } = await rawCaller(own.port)(revoke, {
        token: admin.text,
        json: { id: token.id, requestId: randomUUID() },
      });
      expect(code).toBe('OK');
      expect(await ended).toMatchObject({ code: status.UNAUTHENTICATED });
      await own.close();
    });
  });
});

it('declares UsageService as about the caller', () => {
  expect(contract.rule(pathOf(record))).toMatchObject({ permission: 'PERMISSION_USAGE_RECORD', agentRefs: undefined });
});
