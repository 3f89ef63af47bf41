import { once } from 'node:events';
import { openSync } from 'node:fs';
import { credentials, type ServiceError } from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import {
  AgentLLMConfigWatchServiceClient,
  WatchConfigsRequest,
} from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { limits } from '../../src/limits.js';
import { LogOutput } from '../../src/log.js';
import { agentllm, startCommand, useDirectories } from '../support/command.js';
import { CallError, connect } from '../support/service.js';
import { PROGRAM, serviceEnvironment, startGroup, untilListening } from './support.js';

/* Failures of the output streams of the service neither end nor delay it. */

const directory = useDirectories();

/** Writes many log lines: at level debug, every call writes one. */
async function callRepeatedly(port: number, count: number): Promise<void> {
  const clients = connect(port);
  for (let sent = 0; sent < count; sent += 100)
    await Promise.all(Array.from({ length: 100 }, () => clients.agents.getAgent({ agent: { name: 'trader' } })));
  clients.close();
}

/** Starts the service in a shell with redirected streams. */
async function startWith(redirection: string) {
  const { port, env } = await serviceEnvironment(await directory.started(), {
    LOG_LEVEL: 'debug',
    SHUTDOWN_GRACE_MS: '3000',
  });
  const child = startGroup('sh', ['-c', `exec ${process.execPath} ${PROGRAM} serve ${redirection}`], { env });
  const ended = once(child, 'exit') as Promise<[number | null, string | null]>;
  await untilListening(port, true);
  return { port, child, ended };
}

describe('the service', () => {
  it.each([
    ['a full disk', '2>/dev/full'],
    ['a full disk for both streams', '>/dev/full 2>&1'],
    ['closed streams', '>&- 2>&-'],
    ['a closed standard input', '<&- 2>/dev/full'],
  ])('serves and stops cleanly with %s', async (_description, redirection) => {
    const { port, child, ended } = await startWith(redirection);
    await callRepeatedly(port, 300);
    child.kill('SIGTERM');
    expect(await ended).toEqual([0, null]);
  });

  it('serves and stops cleanly when the reader of its log has closed the stream', async () => {
    const running = await startCommand({ DATA_DIR: await directory.started(), LOG_LEVEL: 'debug' });
    running.child.stderr?.destroy();
    running.child.stdout?.destroy();
    await callRepeatedly(running.port, 300);
    running.child.kill('SIGTERM');
    expect((await running.ended).code).toBe(0);
  });

  it('ends open watches with a status at SIGTERM when the reader of its log has closed the stream', async () => {
    const running = await startCommand({ DATA_DIR: await directory.started(), SHUTDOWN_GRACE_MS: '5000' });
    const client = new AgentLLMConfigWatchServiceClient(`127.0.0.1:${running.port}`, credentials.createInsecure());
    const watch = client.watchConfigs(WatchConfigsRequest.fromPartial({ all_agents: true }));
    const end = new Promise<ServiceError>((resolve) => watch.on('error', resolve));
    await once(watch, 'data');
    watch.resume();
    running.child.stderr?.destroy();
    running.child.kill('SIGTERM');
    // A stream that the service ends has this reason; a broken connection has none.
    expect(new CallError(await end).reason).toBe('SERVER_SHUTTING_DOWN');
    expect((await running.ended).code).toBe(0);
    client.close();
  });

  it('serves and stops cleanly when the reader of its log never reads', async () => {
    const { port, env } = await serviceEnvironment(await directory.started(), { LOG_LEVEL: 'debug' });
    const child = startGroup(process.execPath, [PROGRAM, 'serve'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    child.stderr?.pause();
    const ended = once(child, 'exit');
    await untilListening(port, true);
    // About 300 bytes per line: in total more than a pipe and the log buffer hold.
    await callRepeatedly(port, 5_000);
    child.kill('SIGTERM');
    expect(await ended).toEqual([0, null]);
  });
});

describe('the log', () => {
  class Stream {
    writableLength = 0;
    readonly lines: string[] = [];
    broken = false;
    on(): this {
      return this;
    }
    write(line: string, callback: (error?: Error) => void): boolean {
      if (!this.broken) this.lines.push(line);
      callback(this.broken ? new Error('ENOSPC') : undefined);
      return true;
    }
  }

  it.each([
    ['was full', (stream: Stream, on: boolean) => Object.assign(stream, { broken: on })],
    [
      'was not read',
      (stream: Stream, on: boolean) => Object.assign(stream, { writableLength: on ? limits.logBufferBytes + 1 : 0 }),
    ],
  ])('reports the number of dropped lines when the stream that %s accepts lines again', (_description, setFailing) => {
    const stream = new Stream();
    const output = new LogOutput(stream as never);
    setFailing(stream, true);
    for (const line of ['one\n', 'two\n', 'three\n']) output.write(line);
    setFailing(stream, false);
    output.write('four\n');
    output.write('five\n');
    expect(stream.lines).toHaveLength(3);
    expect(JSON.parse(stream.lines[0] as string)).toMatchObject({ level: 40, count: 3 });
    expect(stream.lines.slice(1)).toEqual(['four\n', 'five\n']);
  });
});

describe('a command', () => {
  it('ends without an error when the reader of its output has closed it', async () => {
    const running = await startCommand({ DATA_DIR: await directory.started() });
    const env = { AGENTLLM_ADDRESS: `127.0.0.1:${running.port}` };
    for (const args of [['agents', 'list'], ['models', 'list', '--json'], ['--help']]) {
      const command = agentllm(args, env);
      command.child.stdout?.destroy();
      expect(await command.ended).toMatchObject({ code: 0, stderr: '' });
    }
  });

  it('reports that its output cannot be written', async () => {
    const command = startGroup(process.execPath, [PROGRAM, 'key', 'generate'], {
      stdio: ['ignore', openSync('/dev/full', 'w'), 'pipe'],
    });
    let stderr = '';
    command.stderr?.on('data', (chunk) => {
      stderr += chunk;
    });
    expect((await once(command, 'close'))[0]).toBe(1);
    expect(stderr).toBe('agentllm: standard output cannot be written (ENOSPC)\n');
  });

  it('succeeds when its standard error is closed', async () => {
    const command = agentllm(['key', 'generate']);
    command.child.stderr?.destroy();
    expect(await command.ended).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\S{44}\n$/) });
  });
});
