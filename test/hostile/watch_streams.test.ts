import http2 from 'node:http2';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { WatchConfigsRequest, WatchConfigsResponse } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { newAgent, status } from '../api/handlers/support.js';
import { useWatchBackend } from '../feed/backend.js';
import { RecordedWatch, watchStub, withLimits } from '../feed/support.js';
import { frame, rawCall } from '../grpc/http2_client.js';
import { startCommand, useDirectories } from '../support/command.js';
import { connect } from '../support/service.js';
import { until } from '../support/until.js';

const path = '/agentllm.v1.AgentLLMConfigWatchService/WatchConfigs';
const ALL = Buffer.from(WatchConfigsRequest.encode(WatchConfigsRequest.fromPartial({ all_agents: true })).finish());
const pollOptions = { timeout: 15_000, interval: 50 };
const directory = useDirectories();

/** The service in a separate process, with the number of watches that its metrics report. */
async function start() {
  const DATA_DIR = await directory.started();
  const command = await startCommand({ DATA_DIR, HTTP_ADDRESS: '127.0.0.1:0' });
  const [, http] = await command.untilOutput(/HTTP {6}[^:\s]+:(\d+)/);
  const clients = connect(command.port);
  onTestFinished(() => clients.close());
  const watches = async () => {
    const text = await (await fetch(`http://127.0.0.1:${http}/metrics`)).text();
    const values = [...text.matchAll(/^agentllm_watches\{state="(\w+)"\} (\d+)$/gm)];
    expect(values.map(([, state]) => state).sort()).toEqual(['behind', 'live']);
    return values.reduce((sum, [, , value]) => sum + Number(value), 0);
  };
  const expectNoWatches = async () => {
    const one = await new RecordedWatch(command.port, { all_agents: true }).ready();
    one.close();
    expect(command.child.exitCode).toBeNull();
    await vi.waitFor(async () => expect(await watches()).toBe(0), pollOptions);
  };
  return { command, port: command.port, clients, watches, expectNoWatches };
}

describe('WatchConfigs', () => {
  it('ends with a status for malformed bytes, two messages and no message', async () => {
    const { port, expectNoWatches } = await start();
    const malformed = 'grpc INVALID_ARGUMENT MALFORMED_REQUEST';
    const bodies: readonly [string, Buffer, RegExp][] = [
      ['garbage', frame(Buffer.from([0xff, 0xff, 0xff, 0xff])), new RegExp(malformed)],
      ['a cut message', frame(ALL.subarray(0, 1)), new RegExp(malformed)],
      ['a length that lies', frame(Buffer.from([0x0a, 0x7f, 0x01])), new RegExp(malformed)],
      ['an empty request', frame(Buffer.alloc(0)), /grpc INVALID_ARGUMENT INVALID_FIELDS/],
      ['two messages', Buffer.concat([frame(ALL), frame(ALL)]), /grpc (UNIMPLEMENTED|INTERNAL)/],
      ['nothing at all', Buffer.alloc(0), /grpc (UNIMPLEMENTED|INTERNAL)/],
      ['a frame cut short', frame(ALL, { length: 100 }), /grpc (UNIMPLEMENTED|INTERNAL)|nothing/],
      ['a frame of 4 GB', frame(ALL, { length: 0xffffffff }), /grpc RESOURCE_EXHAUSTED/],
      // As for unary methods the flag is ignored; the stream stays open until the caller ends it.
      ['a flag without an encoding', frame(ALL, { flag: 1 }), /^nothing$/],
    ];
    for (const [what, body, expected] of bodies) {
      const mayStayOpen = expected.test('nothing');
      const { result } = await rawCall(port, { path, body, ...(mayStayOpen && { waitMs: 1_500 }) });
      expect(result, what).toMatch(expected);
    }
    await expectNoWatches();
  });

  it('leaves no watch when a stream is reset or disconnected during its snapshot', async () => {
    const { port, clients, expectNoWatches } = await start();
    const agents = Array.from({ length: 60 }, (_, at) => ({
      agent: { name: `big_${at}`, agent_type: 'analyst', prompt_template: 'x'.repeat(50_000) },
    }));
    await Promise.all(agents.map((one) => clients.agents.createAgent(one)));
    const codes = http2.constants;
    for (const code of [codes.NGHTTP2_CANCEL, codes.NGHTTP2_INTERNAL_ERROR, codes.NGHTTP2_NO_ERROR]) {
      const session = http2.connect(`http://127.0.0.1:${port}`);
      session.on('error', () => {});
      const streams = Array.from({ length: 30 }, () => {
        const stream = session.request({
          ':method': 'POST',
          ':path': path,
          te: 'trailers',
          'content-type': 'application/grpc',
        });
        stream.on('error', () => {});
        stream.end(frame(ALL));
        return stream;
      });
      // The first bytes of each snapshot have arrived.
      await Promise.all(streams.map((stream) => new Promise((resolve) => stream.once('data', resolve))));
      for (const [at, stream] of streams.entries()) if (at % 3 > 0) stream.close(code);
      // The remaining streams end with their connection.
      await sleep(50);
      session.destroy();
    }
    await expectNoWatches();
  });

  it('leaves no watch when a thousand streams are opened and cancelled immediately', async () => {
    const { port, watches, expectNoWatches } = await start();
    const stub = watchStub(port);
    onTestFinished(() => stub.close());
    for (let round = 0; round < 10; round++) {
      const streams = Array.from({ length: 100 }, () => {
        const stream = stub.watchConfigs(WatchConfigsRequest.fromPartial({ all_agents: true }));
        stream.on('error', () => {});
        return stream;
      });
      for (const [at, stream] of streams.entries()) {
        if (at % 4 === 0) stream.cancel();
        else if (at % 4 === 1) setImmediate(() => stream.cancel());
        else if (at % 4 === 2) setTimeout(() => stream.cancel(), 5);
        else stream.once('data', () => stream.cancel());
      }
    }
    await sleep(100);
    await expectNoWatches();
    expect(await watches()).toBe(0);
  });
});

describe('a watch that is not read', () => {
  const backend = useWatchBackend('embedded');

  it('ends with SLOW_CONSUMER without affecting other watches, and can be resumed', async () => {
    withLimits({ slowConsumerMs: 600_000 });
    const agent = await newAgent(backend());
    const request = { agents: [{ id: agent.id }] };
    const stalled = await backend().watch(request).ready();
    const healthy = await backend().watch(request).ready();
    stalled.pause();
    let last = 0n;
    for (let at = 0; at < 40; at++) {
      const prompt_template = 'x'.repeat(60_000) + at;
      ({ revision: last } = await backend().agents.updateAgent({ agent: { id: agent.id, prompt_template } }));
    }
    await healthy.has(last);
    expect(backend().api.watches()).toEqual({ live: 1, behind: 1 });
    withLimits({ slowConsumerMs: 1_500 });
    await vi.waitFor(() => expect(backend().api.watches()).toEqual({ live: 1, behind: 0 }), pollOptions);
    stalled.resume();
    const error = await stalled.end();
    expect([error.code, error.reason]).toEqual([status.RESOURCE_EXHAUSTED, 'SLOW_CONSUMER']);
    expect(stalled.revisions.length).toBeLessThan(20);
    const resumed = await backend()
      .watch({ ...request, resume_token: stalled.token })
      .has(last);
    expect([...stalled.revisions, ...resumed.revisions]).toEqual(healthy.revisions);
    await backend().check([healthy.history(), stalled.history(), resumed.history(stalled.reached)]);
  });

  it('stays open when it is read again in time, repeatedly', async () => {
    const slowConsumerMs = 6_000;
    withLimits({ slowConsumerMs });
    const agent = await newAgent(backend());
    const slow = await backend()
      .watch({ agents: [{ id: agent.id }] })
      .ready();
    let last = 0n;
    for (let round = 0; round < 3; round++) {
      slow.pause();
      for (let at = 0; at < 12; at++) {
        const prompt_template = 'y'.repeat(60_000) + round + at;
        ({ revision: last } = await backend().agents.updateAgent({ agent: { id: agent.id, prompt_template } }));
      }
      await sleep(slowConsumerMs * 0.4);
      slow.resume();
      await slow.has(last);
    }
    expect(slow.error).toBeUndefined();
    await backend().check([slow.history()]);
  });

  it('does not block writes, and receives a large revision in parts when it is read again', async () => {
    const created = await Promise.all(Array.from({ length: 200 }, () => newAgent(backend())));
    const agents = created.map(({ id }) => ({ id }));
    const stalled = await backend().watch({ all_agents: true }).ready();
    stalled.pause();
    const metadata_json = JSON.stringify({ a: 'x'.repeat(15_000) });
    const config = { provider: 'openai', model_name: 'gpt-4', metadata_json };
    const { revision } = await backend().configs.bulkAssignConfig({ agents, config });
    await until(() => backend().api.watches().behind === 1);
    stalled.resume();
    await stalled.has(revision);
    const { messages } = stalled.itemsOf(revision);
    expect(messages.length).toBeGreaterThan(20);
    expect(Math.max(...messages.map((one) => WatchConfigsResponse.encode(one).finish().length))).toBeLessThan(100_000);
    await backend().check([stalled.history()]);
  });
});
