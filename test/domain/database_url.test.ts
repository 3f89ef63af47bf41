import { describe, expect, it } from 'vitest';
import { DatabaseUrlError, displayAddress, parseDatabaseUrl } from '../../src/domain/database_url.js';

function rejectionOf(url: string): string {
  try {
    parseDatabaseUrl(url);
  } catch (error) {
    if (error instanceof DatabaseUrlError) return error.message;
    throw error;
  }
  return 'accepted';
}

describe('parseDatabaseUrl', () => {
  it.each([
    ['postgres://u:p@h:5433/db', { user: 'u', password: 'p', host: 'h', port: 5433, database: 'db' }],
    ['postgresql://h', { user: undefined, host: 'h', port: undefined, database: undefined }],
    [
      'postgres://u:p@/db?host=/run/pg&port=5432',
      { user: 'u', password: 'p', host: '/run/pg', port: 5432, database: 'db' },
    ],
    ['postgres:///db?host=/var/run/postgresql', { host: '/var/run/postgresql', database: 'db' }],
    ['postgres://u@%2Frun%2Fpg/db', { user: 'u', host: '/run/pg', database: 'db' }],
    ['postgres://[::1]:5432/db', { host: '::1', port: 5432 }],
    ['postgres://u:p%40%2F%25%23@h/a%20b', { password: 'p@/%#', database: 'a b' }],
    // Only the last @ ends the password.
    ['postgres://u:p@ss@h/db', { password: 'p@ss', host: 'h' }],
    ['postgres://u:pa:ss@h/db', { password: 'pa:ss', host: 'h' }],
    ['postgres://h/db?user=u&password=p&dbname=other', { user: 'u', password: 'p', database: 'other' }],
    ['postgres://h/db?schema=tenant', { schema: 'tenant' }],
  ])('parses %s', (url, expected) => expect(parseDatabaseUrl(url)).toMatchObject(expected));

  it.each([
    ['postgres://h/d', 'disable'],
    ['postgres://h/d?sslmode=disable', 'disable'],
    ['postgres://h/d?sslmode=require', 'verify-full'],
    ['postgres://h/d?sslmode=verify-full', 'verify-full'],
    ['postgres://h/d?sslmode=verify-ca', 'verify-ca'],
    ['postgres://h/d?sslmode=no-verify', 'no-verify'],
    ['postgres://h/d?ssl=true', 'verify-full'],
    ['postgres://h/d?sslrootcert=/ca.pem', 'verify-full'],
  ])('parses %s with TLS mode %s', (url, mode) => expect(parseDatabaseUrl(url).tls.mode).toBe(mode));

  it.each([
    ['application_name=x', { applicationName: 'x' }],
    ['connect_timeout=3', { connectTimeoutMs: 3_000 }],
    ['options=-c%20search_path%3Dx', { options: '-c search_path=x' }],
    ['channel_binding=prefer', { channelBinding: true }],
  ])('applies the parameter %s', (query, expected) =>
    expect(parseDatabaseUrl(`postgres://h/d?${query}`).parameters).toMatchObject(expected),
  );

  it.each([
    ['postgres://u:hun/ter2@db.example.com/d', /percent-encode/],
    ['postgres://u:12/hunter2@db.example.com/d', /percent-encode/],
    ['postgres://u:12?hunter2@db.example.com/d', /percent-encode/],
    ['postgres://u:12?hunter2=x@db.example.com/d', /percent-encode/],
    ['postgres://u:12#hunter2@db.example.com/d', /percent-encode/],
    ['postgres://u:hunter2%@h/d', /begins no percent-encoded character/],
    ['postgres://u:hunter2@h:port/d', /host or port that is not valid/],
    ['postgres://u:hunter2@h:0/d', /port that is not from 1 to 65535/],
    ['postgres://u:hunter2@h1:1,h2:2/d', /several hosts/],
    ['postgres://u:hunter2@/d?host=h1,h2', /several hosts/],
    ['postgres://u:hunter2@h/d?sslmode=prefer', /sslmode, which must be disable, require/],
    ['postgres://u:hunter2@h/d?channel_binding=require', /channel_binding, which must be/],
    ['postgres://u:hunter2@h/d?target_session_attrs=read-write', /target_session_attrs, which must be any/],
    ['postgres://u:hunter2@h/d?client_encoding=LATIN1', /client_encoding, which must be UTF8/],
    ['postgres://u:hunter2@h/d?service=x', /service, which is not supported/],
    ['postgres://u:hunter2@h/d?pgbouncer=true', /pgbouncer, which is not needed/],
    ['postgres://u:hunter2@h/d?shcema=x', /unknown parameter shcema; the known ones are .*schema/],
    ['postgres://u:x@h/d?hunter2=x', /unknown parameter; the known ones are/],
  ])('rejects %s without a part of the URL in the message', (url, message) => {
    expect(rejectionOf(url)).toMatch(message);
    expect(rejectionOf(url)).not.toMatch(/hun|ter2|example/);
  });

  it('describes the server without user and password', () => {
    expect(displayAddress(parseDatabaseUrl('postgres://u:p@h/d'))).toBe('h:5432');
    expect(displayAddress(parseDatabaseUrl('postgres://u:p@[::1]:1/d'))).toBe('[::1]:1');
    expect(displayAddress(parseDatabaseUrl('postgres:///d?host=/run/pg'))).toBe('the socket /run/pg/.s.PGSQL.5432');
  });
});
