import { EventEmitter } from 'node:events';
import type { Http2Server, Http2Session } from 'node:http2';
import { Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { connectionOf, GrpcConnection, sessionTracker } from '../../src/grpc/connection.js';
import type { ConnectionResponses } from '../../src/net/unread_responses.js';

const open = () => new GrpcConnection(new Socket(), {} as ConnectionResponses);

describe('GrpcConnection.credentials', () => {
  it('returns the same object for the calls with the same header', () => {
    const connection = open();
    const first = connection.credentials('Bearer one');
    expect(first).toEqual({ authorization: 'Bearer one' });
    expect(connection.credentials('Bearer one')).toBe(first);
  });

  it('returns the credentials of each call when the header changes', () => {
    const connection = open();
    expect(connection.credentials('Bearer one')).toEqual({ authorization: 'Bearer one' });
    expect(connection.credentials('Bearer two')).toEqual({ authorization: 'Bearer two' });
    expect(connection.credentials(undefined)).toEqual({ identities: [] });
    expect(connection.credentials('')).toEqual({ authorization: '' });
    expect(connection.credentials('Bearer one')).toEqual({ authorization: 'Bearer one' });
  });
});

describe('sessionTracker', () => {
  const session = () => ({}) as Http2Session;

  it('finds the connection of each session that is created while the socket is injected', () => {
    const server = new EventEmitter();
    const accept = sessionTracker([server as Http2Server]);
    const [one, other] = [session(), session()];
    const connections = [open(), open()] as const;
    accept(connections[0], () => server.emit('session', one));
    accept(connections[1], () => server.emit('session', other));
    expect(connectionOf(one)).toBe(connections[0]);
    expect(connectionOf(other)).toBe(connections[1]);
  });

  it('finds no connection when the socket was closed before it had a session', () => {
    const server = new EventEmitter();
    const accept = sessionTracker([server as Http2Server]);
    const later = session();
    accept(open(), () => undefined);
    server.emit('session', later);
    expect(connectionOf(later)).toBeUndefined();
    expect(connectionOf(undefined)).toBeUndefined();
  });
});
