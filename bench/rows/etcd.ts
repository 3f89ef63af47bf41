import { spawnSync } from 'node:child_process';
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import {
  AgentLLMConfigServiceService,
  GetPrimaryConfigRequest,
} from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { freePort } from '../../test/support/ports.js';
import type { Lab } from '../lab.js';
import { loadGenerator } from '../load.js';
import type { Row } from '../row.js';
import { type Caller, caller, startService } from '../service.js';
import { compare, interleave } from '../statistics.js';

const LOAD = { connections: 4, streams: 16 };
const RANGE = '/etcdserverpb.KV/Range';
const PUT = '/etcdserverpb.KV/Put';
const KEY = Buffer.from('/agents/trader/primary');
const NOT_INSTALLED =
  'etcd is not installed; with it on the PATH (Debian: apt-get install etcd-server) this row compares with its Range';

export const row: Row = {
  name: 'etcd',
  about: "GetPrimaryConfig against etcd's linearizable Range, same value size and load",
  target: 'higher throughput',
  async run(lab) {
    const goal = { kind: 'ratio above', value: 1 } as const;
    if (spawnSync('etcd', ['--version']).status !== 0)
      return [{ what: 'GetPrimaryConfig against etcd', unit: 'calls/s', goal, note: NOT_INSTALLED }];
    const { name, generate } = await loadGenerator(lab);
    const service = await startService(lab);
    const { path } = AgentLLMConfigServiceService.getPrimaryConfig;
    const request = GetPrimaryConfigRequest.encode(
      GetPrimaryConfigRequest.fromPartial({ agent: { name: 'trader' } }),
    ).finish();
    const reply = await service.client(path, request);
    const ours = { port: service.port, path, request, replyBytes: reply.length };
    const etcd = await startEtcd(lab, reply);
    const pairs = await interleave(
      lab.effort.rounds,
      () => generate(ours, LOAD),
      () => generate(etcd, LOAD),
    );
    const note = `value of ${reply.length} bytes, ${LOAD.connections} × ${LOAD.streams} in flight, ${name}`;
    const what = 'GetPrimaryConfig against etcd';
    return [
      { what: `${what}, throughput`, unit: 'calls/s', ...compare(pairs, ({ perSecond }) => perSecond), goal, note },
      {
        what: `${what}, p99`,
        unit: 'ms',
        ...compare(pairs, ({ p99 }) => p99),
        goal: { kind: 'ratio at most', value: 1 },
      },
    ];
  },
};

/** Starts an etcd with one member that contains the value, in a temporary directory and on the loopback interface. */
async function startEtcd(lab: Lab, value: Buffer) {
  const [port, peerPort] = [await freePort(), await freePort()];
  const [url, peerUrl] = [`http://127.0.0.1:${port}`, `http://127.0.0.1:${peerPort}`];
  const directory = await lab.directory();
  const args = [
    ...['--data-dir', directory, '--listen-client-urls', url, '--advertise-client-urls', url],
    ...['--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl],
    ...['--initial-cluster', `default=${peerUrl}`],
  ];
  await lab.start('etcd', args).match(/ready to serve client requests/);
  const call = caller(lab, port);
  await call(PUT, new BinaryWriter().uint32(10).bytes(KEY).uint32(18).bytes(value).finish());
  const request = new BinaryWriter().uint32(10).bytes(KEY).finish();
  const reply = await readRange(call, request, value);
  return { port, path: RANGE, request, replyBytes: reply.length };
}

/** The response of Range; throws when it does not contain the value exactly once. */
async function readRange(call: Caller, request: Uint8Array, value: Buffer): Promise<Buffer> {
  const reply = await call(RANGE, request);
  const COUNT = 4;
  const fields = new BinaryReader(reply);
  let count = 0;
  while (fields.pos < fields.len) {
    const [field, type] = fields.tag();
    if (field === COUNT) count = Number(fields.int64());
    else fields.skip(type);
  }
  if (count !== 1 || !reply.includes(value)) throw new Error('etcd did not return the stored value');
  return reply;
}
