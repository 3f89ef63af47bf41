import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { limits } from '../../src/limits.js';
import type { Log } from '../../src/log.js';
import { UnreadResponses } from '../../src/net/unread_responses.js';

const MIB = 1024 * 1024;

class FakeSocket extends EventEmitter {
  readonly remoteAddress = '127.0.0.1';
  destroyed = false;

  destroy(): void {
    this.destroyed = true;
    this.emit('close');
  }
}

describe('UnreadResponses', () => {
  let responses: UnreadResponses;
  const warn = vi.fn();

  beforeEach(() => {
    vi.useFakeTimers();
    warn.mockClear();
    responses = new UnreadResponses({ warn } as unknown as Log);
  });
  afterEach(() => {
    responses.close();
    vi.useRealTimers();
  });

  function connect() {
    const socket = new FakeSocket();
    return { socket, connection: responses.open(socket as unknown as Socket) };
  }

  /** Writes responses of 8 MiB that together exceed the limit of all connections, each on a connection of its own. */
  function exceedTotal() {
    const connections = Array.from({ length: limits.unreadBytes / (8 * MIB) }, connect);
    for (const { connection } of connections) connection.add(8 * MIB);
    return connections;
  }

  it('ends a connection when a response is unread for a minute', () => {
    const { socket, connection } = connect();
    connection.add(10);
    vi.advanceTimersByTime(limits.unreadMs - 500);
    expect(socket.destroyed).toBe(false);
    vi.advanceTimersByTime(1_000);
    expect(socket.destroyed).toBe(true);
    expect(warn).toHaveBeenCalledWith(expect.anything(), expect.stringContaining('did not read a response in time'));
  });

  it('ends no connection whose responses are sent', () => {
    const { socket, connection } = connect();
    connection.add(10)();
    vi.advanceTimersByTime(2 * limits.unreadMs);
    expect(socket.destroyed).toBe(false);
    expect(connection.bytes).toBe(0);
  });

  it('ends the slowest connections, and only as many as necessary, when the total exceeds its limit', () => {
    const connections = exceedTotal();
    vi.advanceTimersByTime(900);
    expect(connections.filter(({ socket }) => socket.destroyed)).toEqual([]);
    vi.advanceTimersByTime(600);
    expect(connections.map(({ socket }) => socket.destroyed)).toEqual(connections.map((_, at) => at === 0));
    expect(warn).toHaveBeenCalledWith(expect.anything(), expect.stringContaining('too many bytes'));
  });

  it('lowers the limit of each connection while the total exceeds its limit', () => {
    expect(responses.allowed).toBe(limits.unreadBytesPerConnection);
    const connections = exceedTotal();
    expect(responses.allowed).toBe(limits.unreadBytesPressed);
    const checkRoom = () => connections[1]?.connection.checkRoom();
    expect(checkRoom).toThrow(expect.objectContaining({ reason: 'RESPONSES_NOT_READ' }));
    connections[0]?.socket.destroy();
    expect(responses.allowed).toBe(limits.unreadBytesPerConnection);
    expect(checkRoom).not.toThrow();
  });

  it('counts a connection that is closed once, also when its responses are sent afterwards', () => {
    const { socket, connection } = connect();
    const sent = connection.add(8 * MIB);
    socket.destroy();
    socket.emit('close');
    sent();
    connection.add(8 * MIB)();
    const connections = exceedTotal();
    expect(responses.allowed).toBe(limits.unreadBytesPressed);
    for (const one of connections) one.socket.destroy();
    expect(responses.allowed).toBe(limits.unreadBytesPerConnection);
  });
});
