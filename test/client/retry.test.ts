import { readFileSync } from 'node:fs';
import { type AddressInfo, createServer, connect as dial, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { createFileRegistry, fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { credentials, type ServiceError, status } from '@grpc/grpc-js';
import { describe, expect, it, onTestFinished } from 'vitest';
import { AgentLLMConfigServiceClient, CreateConfigRequest } from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { serviceConfig } from '../../gen/ts/service_config.js';
import { AgentLLMError } from '../../src/client/index.js';
import { packageFile } from '../../src/package.js';
import { startProxy } from '../support/proxy.js';
import { unique, useService } from '../support/service.js';
import { until } from '../support/until.js';
import { connectTo, failed, failWith, SOON_MS, startFake, timed } from './support.js';

const json = JSON.parse(readFileSync(packageFile('proto/agentllm/v1/service_config.json'), 'utf8'));
const [{ name: services, retryPolicy: policy }] = json.methodConfig;
const MODEL = { provider: 'openai', model_name: 'gpt-4' };

type TcpProxy = Awaited<ReturnType<typeof startProxy>>;

/** A TCP proxy that can stop listening, like the port of the service while it restarts. */
class RestartableProxy {
  private readonly sockets = new Set<Socket>();
  private server: Server | undefined;
  port = 0;

  constructor(private readonly to: number) {}

  async open(): Promise<void> {
    const server = createServer((client) => {
      const upstream = dial(this.to, '127.0.0.1');
      for (const [from, into] of [
        [client, upstream],
        [upstream, client],
      ] as const) {
        this.sockets.add(from);
        from.pipe(into);
        from.on('error', () => into.destroy());
        from.on('close', () => this.sockets.delete(from));
      }
    });
    await new Promise<void>((resolve) => server.listen(this.port, '127.0.0.1', resolve));
    this.port = (server.address() as AddressInfo).port;
    this.server = server;
  }

  close(): void {
    this.server?.close();
    for (const socket of this.sockets) socket.destroy();
  }
}

async function startRestartableProxy(port: number): Promise<RestartableProxy> {
  const proxy = new RestartableProxy(port);
  await proxy.open();
  onTestFinished(() => proxy.close());
  return proxy;
}

describe('the retry policy', () => {
  it('equals service_config.json and names every service of the contract', () => {
    expect(serviceConfig).toEqual(json);
    const set = fromBinary(FileDescriptorSetSchema, readFileSync(packageFile('gen/descriptor.binpb')));
    const contractServices = [...createFileRegistry(set)]
      .filter((type) => type.kind === 'service')
      .map(({ typeName }) => typeName)
      .filter((name) => name.startsWith('agentllm.'));
    expect(services.map(({ service }: { service: string }) => service).sort()).toEqual(contractServices.sort());
    // gRPC does not retry streams: the caller reopens them from the position that it has reached.
    expect(json.methodConfig.slice(1)).toEqual([
      {
        name: [
          { service: 'agentllm.v1.AgentLLMConfigWatchService', method: 'WatchConfigs' },
          { service: 'agentllm.v1.CredentialService', method: 'RotateEncryptionKey' },
          { service: 'agentllm.v1.UsageService', method: 'StreamUsage' },
        ],
      },
    ]);
  });

  it('stops after maxAttempts attempts, each after its backoff', async () => {
    const times: number[] = [];
    const fake = await startFake((_, done) => {
      times.push(performance.now());
      done(failWith(status.UNAVAILABLE, 'not now'));
    });
    const error = await failed(connectTo(fake.address).agents.createAgent());
    expect(error).toMatchObject({ code: 'UNAVAILABLE', message: 'not now' });
    expect(times).toHaveLength(policy.maxAttempts);
    const pauses = times.slice(1).map((time, at) => time - (times[at] as number));
    const backoffs = pauses.map((_, at) => Math.min(100 * policy.backoffMultiplier ** at, 3_000));
    pauses.forEach((pause, at) => {
      expect(pause).toBeGreaterThan((backoffs[at] as number) * 0.75);
      expect(pause).toBeLessThan((backoffs[at] as number) * 1.25 + SOON_MS);
    });
    expect(fake.calls.map((metadata) => metadata.get('grpc-previous-rpc-attempts')[0])).toEqual(
      times.map((_, at) => (at === 0 ? undefined : String(at))),
    );
  });

  it('stops at the deadline', async () => {
    const fake = await startFake((_, done) => done(failWith(status.UNAVAILABLE, 'not now')));
    const { code } = await failed(connectTo(fake.address).agents.listAgents({}, { deadlineMs: 600 }));
    expect(code).toBe('DEADLINE_EXCEEDED');
    const attempts = fake.calls.length;
    expect(attempts).toBeLessThan(policy.maxAttempts);
    await sleep(1_500);
    expect(fake.calls).toHaveLength(attempts);
  });

  it('does not retry when the code is not UNAVAILABLE', async () => {
    for (const code of Object.values(status).filter((one) => typeof one === 'number')) {
      if (code === status.OK || code === status.UNAVAILABLE) continue;
      const fake = await startFake((_, done) => done(failWith(code, 'no')));
      await failed(connectTo(fake.address).agents.listAgents());
      expect(fake.calls).toHaveLength(1);
    }
  });

  it('does not retry when the option retry is false', async () => {
    const fake = await startFake((_, done) => done(failWith(status.UNAVAILABLE, 'not now')));
    const { ms } = await timed(failed(connectTo(fake.address, { retry: false }).agents.listAgents()));
    expect(ms).toBeLessThan(SOON_MS);
    expect(fake.calls).toHaveLength(1);
  });

  it('sends every attempt of a write with the same request id, and each write with a new one', async () => {
    const ids: string[] = [];
    const fake = await startFake(({ request }, done) => {
      ids.push((request as { request_id: string }).request_id);
      done(ids.length % 3 === 0 ? null : failWith(status.UNAVAILABLE, 'not now'), {});
    });
    const { agents } = connectTo(fake.address);
    await agents.createAgent();
    await agents.createAgent();
    expect(new Set(ids.slice(0, 3)).size).toBe(1);
    expect(new Set(ids).size).toBe(2);
    for (const id of ids) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  });

  it('keeps a request id that is passed, even an empty one', async () => {
    const ids: string[] = [];
    const fake = await startFake(({ request }, done) => {
      ids.push((request as { request_id: string }).request_id);
      done(failWith(status.ABORTED, 'no'));
    });
    const { agents } = connectTo(fake.address);
    const passedId = '6f9619ff-8b86-4d01-b42d-00cf4fc964ff';
    expect((await failed(agents.createAgent({ request_id: passedId }))).requestId).toBe(passedId);
    expect((await failed(agents.createAgent({ request_id: '' }))).requestId).toBeUndefined();
    const { requestId } = await failed(agents.createAgent({ request_id: undefined }));
    expect(ids).toEqual([passedId, '', requestId]);
    expect(requestId).toHaveLength(36);
  });

  it('does not modify the request that is passed', async () => {
    const fake = await startFake();
    const request = Object.freeze({ agent: Object.freeze({ name: 'x' }) });
    await connectTo(fake.address).agents.createAgent(request);
    expect(Object.keys(request)).toEqual(['agent']);
  });
});

describe('a service that is unavailable', () => {
  const service = useService('embedded');

  const newAgent = async () => {
    const name = unique('agent');
    await service().agents.createAgent({ agent: { name, agent_type: 'analyst' } });
    return name;
  };
  const configsOf = async (name: string) => (await service().configs.listConfigs({ agent: { name } })).configs;

  it.each([10, 60])(
    'for one second fails none of %d reads and as many writes, and each write is executed once',
    async (count) => {
      const name = await newAgent();
      const proxy = await startRestartableProxy(service().port);
      const { agents, configs } = connectTo(`127.0.0.1:${proxy.port}`, { deadlineMs: 30_000 });
      await agents.listAgents();
      const calls = (from: number) => [
        ...Array.from({ length: count / 2 }, (_, at) =>
          configs.createConfig({ agent: { name }, config: { ...MODEL, max_tokens: from + at + 1 } }),
        ),
        ...Array.from({ length: count / 2 }, () => agents.getAgent({ agent: { name } })),
      ];
      // Some calls are in progress when the proxy closes.
      const before = calls(0);
      await sleep(5);
      proxy.close();
      const all = Promise.all([...before, ...calls(count / 2)]);
      all.catch(() => {});
      await sleep(1_000);
      await proxy.open();
      await all;
      const written = (await configsOf(name)).map(({ max_tokens }) => max_tokens).sort((a = 0, b = 0) => a - b);
      expect(written).toEqual(Array.from({ length: count }, (_, at) => at + 1));
    },
  );

  it('fails a call immediately when the option retry is false', async () => {
    const proxy = await startRestartableProxy(service().port);
    const { agents } = connectTo(`127.0.0.1:${proxy.port}`, { retry: false });
    await agents.listAgents();
    proxy.close();
    const { ms, value } = await timed(failed(agents.listAgents()));
    expect(value).toMatchObject({ code: 'UNAVAILABLE', reason: undefined });
    expect(ms).toBeLessThan(SOON_MS);
    await proxy.open();
    await connectTo(`127.0.0.1:${proxy.port}`).agents.listAgents();
  });

  it('is reached again after a long outage, and retries work again', async () => {
    const proxy = await startRestartableProxy(service().port);
    const { agents } = connectTo(`127.0.0.1:${proxy.port}`, { deadlineMs: 1_000 });
    await agents.listAgents();
    proxy.close();
    // Enough failures for the throttle to stop the retries.
    for (let round = 0; round < 3; round++)
      await Promise.all(Array.from({ length: 500 }, () => failed(agents.listAgents())));
    await proxy.open();
    await connectTo(`127.0.0.1:${proxy.port}`).ready(30_000);
    const succeeds = () =>
      agents.listAgents().then(
        () => true,
        () => false,
      );
    await until(succeeds);
    for (let call = 0; call < 100; call++) await agents.listAgents();
    proxy.close();
    const [error] = await Promise.all([
      agents.listAgents({}, { deadlineMs: 30_000 }).catch((failure) => failure),
      sleep(200).then(() => proxy.open()),
    ]);
    expect(error).not.toBeInstanceOf(Error);
  });

  it('is reached over another connection when its connection freezes', async () => {
    const proxy = await startProxy(service().port);
    // The keepalive detects it after 8 s. The default deadline of 10 s would leave a busy machine only 2 s.
    const { agents } = connectTo(`127.0.0.1:${proxy.port}`, { deadlineMs: 20_000 });
    await agents.listAgents();
    proxy.strand();
    await agents.listAgents();
    expect((await timed(agents.listAgents())).ms).toBeLessThan(SOON_MS);
  });

  /** Holds back the response of a write until another caller sees the write, and then breaks the connection. */
  async function loseResponse(name: string, proxy: TcpProxy, how: 'cut' | 'reset'): Promise<void> {
    for (const link of proxy.links) link.freeze('down');
    let replies = 0;
    proxy.onReply = () => {
      replies++;
    };
    await until(async () => (await configsOf(name)).length > 0, 'the write is committed');
    await until(() => replies > 0, 'the response has reached the proxy');
    for (const link of proxy.links) link[how]();
  }

  it.each(['cut', 'reset'] as const)(
    'executes a write once when the connection is %s between commit and response',
    async (how) => {
      const name = await newAgent();
      const proxy = await startProxy(service().port);
      const { agents, configs } = connectTo(`127.0.0.1:${proxy.port}`);
      await agents.listAgents();
      const lost = loseResponse(name, proxy, how);
      const { config } = await configs.createConfig({ agent: { name }, config: MODEL });
      await lost;
      expect((await configsOf(name)).map(({ id }) => id)).toEqual([config?.id]);
    },
  );

  it('executes a write once when the caller repeats it with the request id of the failed attempt', async () => {
    const name = await newAgent();
    const proxy = await startProxy(service().port);
    const { agents, configs } = connectTo(`127.0.0.1:${proxy.port}`, { retry: false });
    await agents.listAgents();
    const lost = loseResponse(name, proxy, 'cut');
    const request = { agent: { name }, config: MODEL };
    const error = await failed(configs.createConfig(request));
    await lost;
    expect(error).toMatchObject({ code: 'UNAVAILABLE', reason: undefined });
    const { config } = await configs.createConfig({ ...request, request_id: error.requestId });
    expect((await configsOf(name)).map(({ id }) => id)).toEqual([config?.id]);
  });

  it('rejects the retry of a gRPC library that sent the write without a request id', async () => {
    const name = await newAgent();
    const proxy = await startProxy(service().port);
    const stub = new AgentLLMConfigServiceClient(`127.0.0.1:${proxy.port}`, credentials.createInsecure(), {
      'grpc.service_config': JSON.stringify(json),
      'grpc.use_local_subchannel_pool': 1,
    });
    onTestFinished(() => stub.close());
    await new Promise<void>((resolve, reject) =>
      stub.waitForReady(Date.now() + 5_000, (error) => (error ? reject(error) : resolve())),
    );
    const lost = loseResponse(name, proxy, 'cut');
    const error = await new Promise<ServiceError | null>((resolve) =>
      stub.createConfig(CreateConfigRequest.fromPartial({ agent: { name }, config: MODEL }), resolve),
    );
    await lost;
    if (!error) throw new Error('the retry was taken');
    expect(AgentLLMError.from(error, 'CreateConfig')).toMatchObject({
      code: 'FAILED_PRECONDITION',
      reason: 'RETRY_WITHOUT_REQUEST_ID',
    });
    expect(await configsOf(name)).toHaveLength(1);
  });
});
