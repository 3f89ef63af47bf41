import { once } from 'node:events';
import { openSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
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
import { PROGRAM, place, startGroup, until } from './support.js';

/* Logging neither ends nor shortens the service, whatever becomes of its streams. */

const directory = useDirectories();

/** Writes a lot to the log: at debug, every call is a line. */
async function callOften(port: number, times: number): Promise<void> {
  const clients = connect(port);
  for (let done = 0; done < times; done += 100)
    await Promise.all(Array.from({ length: 100 }, () => clients.agents.getAgent({ agent: { name: 'trader' } })));
  clients.close();
}

/** Starts the service in a shell, with what is said of its streams. */
async function startWith(redirection: string) {
  const { port, env } = await place(await directory.started(), { LOG_LEVEL: 'debug', SHUTDOWN_GRACE_MS: '3000' });
  const child = startGroup('sh', ['-c', `exec ${process.execPath} ${PROGRAM} serve ${redirection}`], { env });
  const ended = once(child, 'exit') as Promise<[number | null, string | null]>;
  await until(port, true);
  return { port, child, ended };
}

describe('the service', () => {
  it.each([
    ['a full disk', '2>/dev/full'],
    ['a full disk for both streams', '>/dev/full 2>&1'],
    ['closed streams', '>&- 2>&-'],
    ['a closed standard input', '<&- 2>/dev/full'],
  ])('serves and stops cleanly with %s', async (_what, redirection) => {
    const { port, child, ended } = await startWith(redirection);
    await callOften(port, 300);
    child.kill('SIGTERM');
    expect(await ended).toEqual([0, null]);
  });

  it('serves and stops cleanly when the reader of its log has gone away', async () => {
    const running = await startCommand({ DATA_DIR: await directory.started(), LOG_LEVEL: 'debug' });
    running.child.stderr?.destroy();
    running.child.stdout?.destroy();
    await callOften(running.port, 300);
    running.child.kill('SIGTERM');
    expect((await running.ended).code).toBe(0);
  });

  it('lets open streams end in order at SIGTERM though the reader of its log has gone away', async () => {
    const running = await startCommand({ DATA_DIR: await directory.started(), SHUTDOWN_GRACE_MS: '5000' });
    const client = new AgentLLMConfigWatchServiceClient(`127.0.0.1:${running.port}`, credentials.createInsecure());
    const watch = client.watchConfigs(WatchConfigsRequest.fromPartial({ all_agents: true }));
    const end = new Promise<ServiceError>((resolve) => watch.on('error', resolve));
    await once(watch, 'data');
    watch.resume();
    running.child.stderr?.destroy();
    running.child.kill('SIGTERM');
    // What a watcher is sent when the service stops; a stream that is cut has no reason.
    expect(new CallError(await end).reason).toBe('SERVER_SHUTTING_DOWN');
    expect((await running.ended).code).toBe(0);
    client.close();
  });

  it('is not stopped by a reader that never reads', async () => {
    const { port, env } = await place(await directory.started(), { LOG_LEVEL: 'debug' });
    const child = startGroup(process.execPath, [PROGRAM, 'serve'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    child.stderr?.pause();
    const ended = once(child, 'exit');
    await until(port, true);
    // Some 300 bytes a line: more than a pipe and the buffer for the log hold.
    await callOften(port, 5_000);
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
    write(line: string, done: (error?: Error) => void): boolean {
      if (!this.broken) this.lines.push(line);
      done(this.broken ? new Error('ENOSPC') : undefined);
      return true;
    }
  }

  it.each([
    ['was full', (stream: Stream, on: boolean) => Object.assign(stream, { broken: on })],
    [
      'was not read',
      (stream: Stream, on: boolean) => Object.assign(stream, { writableLength: on ? limits.logBufferBytes + 1 : 0 }),
    ],
  ])('counts what is dropped, and says so once the stream that %s takes lines again', (_what, set) => {
    const stream = new Stream();
    const output = new LogOutput(stream as never);
    set(stream, true);
    for (const line of ['one\n', 'two\n', 'three\n']) output.write(line);
    set(stream, false);
    output.write('four\n');
    output.write('five\n');
    expect(stream.lines).toHaveLength(3);
    expect(JSON.parse(stream.lines[0] as string)).toMatchObject({ level: 40, count: 3 });
    expect(stream.lines.slice(1)).toEqual(['four\n', 'five\n']);
  });
});

describe('a command', () => {
  it('ends quietly when its reader has enough', async () => {
    const running = await startCommand({ DATA_DIR: await directory.started() });
    const env = { AGENTLLM_ADDRESS: `127.0.0.1:${running.port}` };
    for (const args of [['agents', 'list'], ['models', 'list', '--json'], ['--help']]) {
      const command = agentllm(args, env);
      command.child.stdout?.destroy();
      expect(await command.ended).toMatchObject({ code: 0, stderr: '' });
    }
  });

  it('says that its output cannot be written', async () => {
    const command = startGroup(process.execPath, [PROGRAM, 'key', 'generate'], {
      stdio: ['ignore', openSync('/dev/full', 'w'), 'pipe'],
    });
    let said = '';
    command.stderr?.on('data', (chunk) => {
      said += chunk;
    });
    expect((await once(command, 'exit'))[0]).toBe(1);
    await delay(50);
    expect(said).toBe('agentllm: standard output cannot be written (ENOSPC)\n');
  });

  it('does its work though its messages go nowhere', async () => {
    const command = agentllm(['key', 'generate']);
    command.child.stderr?.destroy();
    expect(await command.ended).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\S{44}\n$/) });
  });
});
