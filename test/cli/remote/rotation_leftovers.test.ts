import { Server, ServerCredentials, type ServerWritableStream } from '@grpc/grpc-js';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  CredentialServiceService as Definition,
  type RotateEncryptionKeyRequest,
  RotateEncryptionKeyResponse,
} from '../../../gen/ts/agentllm/v1/credential_service.js';
import { runCommand } from '../../support/run_command.js';

type Progress = Partial<RotateEncryptionKeyResponse>;

/** Starts a server whose RotateEncryptionKey reports `last` as its final progress. */
async function serviceThatReports(last: Progress): Promise<string> {
  const server = new Server();
  const rotateEncryptionKey = (call: ServerWritableStream<RotateEncryptionKeyRequest, RotateEncryptionKeyResponse>) => {
    call.write(RotateEncryptionKeyResponse.fromPartial({ total: last.total ?? 0, key_id: 'abc' }));
    call.write(RotateEncryptionKeyResponse.fromPartial({ ...last, key_id: 'abc', finished: true }));
    call.end();
  };
  const unimplemented = (_: unknown, callback: (error: object) => void) => callback({ code: 12, details: 'not here' });
  const otherMethods = Object.fromEntries(Object.keys(Definition).map((name) => [name, unimplemented]));
  server.addService(Definition, { ...otherMethods, rotateEncryptionKey } as never);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  onTestFinished(() => server.forceShutdown());
  return `127.0.0.1:${port}`;
}

describe('the exit code of agentllm key rotate', () => {
  it.each([
    ['0 when all keys were re-encrypted', { total: 3, done: 3 }, [], 0, /^3 of 3 keys re-encrypted/],
    [
      '1 when keys cannot be decrypted',
      { total: 3, done: 2, unreadable: 1 },
      [],
      1,
      /1 key skipped, because they cannot be decrypted/,
    ],
    [
      '0 when keys cannot be decrypted and --skip-unreadable is set',
      { total: 3, done: 2, unreadable: 1 },
      ['--skip-unreadable'],
      0,
      /1 key skipped, because they cannot be decrypted/,
    ],
    [
      '1 when keys were stored under an older key during the rotation',
      { total: 3, done: 2 },
      [],
      1,
      /1 key stored meanwhile by a replica that encrypts with an older key/,
    ],
    [
      '1 when keys were stored under an older key, also with --skip-unreadable',
      { total: 4, done: 2, unreadable: 1 },
      ['--skip-unreadable'],
      1,
      /1 key stored meanwhile by a replica that encrypts with an older key/,
    ],
  ] as const)('is %s', async (_, progress, options, exitCode, output) => {
    const env = { AGENTLLM_ADDRESS: await serviceThatReports(progress) };
    const { code, stdout, stderr } = await runCommand(['key', 'rotate', ...options], env);
    expect([code, stdout]).toEqual([exitCode, expect.stringMatching(output)]);
    expect(stderr).not.toContain('agentllm:');
  });
});
