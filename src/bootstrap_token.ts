import { constants, open, readFile, unlink } from 'node:fs/promises';
import { writeFileAtomically } from './atomic_file.js';
import { hashOf, makeToken, type NewToken, planToken, readToken, type TokenRequest } from './domain/token.js';
import { errorCode } from './error_properties.js';
import { StartError } from './errors.js';
import type { Log } from './log.js';
import type { Store } from './store/store.js';
import { transact } from './store/write/transact.js';

/**
 * Creates the first token of a store, with the role of an administrator. Its text comes from the file; if the file is
 * missing or empty, a new text is generated and written to it. A store that has had a token, even a revoked one, is not
 * changed.
 *
 * The text is on disk before the token is stored. If the process is killed in between, the next start creates the same
 * token from the file.
 */
export async function bootstrapToken(store: Store, file: string, log: Log): Promise<void> {
  if (store.state.tokensExist) return log.debug({ file }, 'the store has had tokens; BOOTSTRAP_TOKEN_FILE is not used');
  const existing = await readExisting(file);
  const token = existing ?? (await writeNew(file));
  if (await createFirstToken(store, token)) {
    log.info({ id: token.id, file }, 'created the first token, for an administrator');
    return;
  }
  if (store.state.tokenWithHash(hashOf(token.text)))
    return log.info({ id: token.id, file }, 'another replica created the first token, from this BOOTSTRAP_TOKEN_FILE');
  // Another replica was faster and used another text.
  if (!existing) await unlink(file).catch(() => {});
  log.info({ file }, 'another replica created the first token; BOOTSTRAP_TOKEN_FILE is not used');
}

const FIRST: TokenRequest = {
  name: 'bootstrap',
  role: 'ROLE_ADMIN',
  agents: [],
  all_agents: false,
  certificate_identity: '',
  lifetimeMs: undefined,
};

/** Creates the first token of a store; false if any replica has created one before. */
async function createFirstToken(store: Store, newToken: NewToken): Promise<boolean> {
  let isCreated = false;
  await transact<boolean>(store, {
    actor: 'agentllm',
    method: 'token/bootstrap',
    requestId: undefined,
    reason: undefined,
    plan(state, draft) {
      if (state.tokensExist) return false;
      planToken(state, draft, FIRST, newToken);
      return true;
    },
    encodeResponse: (created) => {
      isCreated = created;
      return new Uint8Array();
    },
    body: () => new Uint8Array(),
  });
  return isCreated;
}

/** The token in the first line of the file; undefined if the file is missing or empty. */
async function readExisting(file: string): Promise<NewToken | undefined> {
  let text: string;
  try {
    text = firstLineOf(await readFile(file, 'utf8'));
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw new StartError(`BOOTSTRAP_TOKEN_FILE ${file} cannot be read (${errorCode(error)})`, { cause: error });
  }
  if (text === '') return undefined;
  const token = readToken(text);
  if (token) return token;
  throw new StartError(
    `BOOTSTRAP_TOKEN_FILE ${file} does not hold a token. Generate its content with agentllm token generate, or remove the file, so that the service writes a new token to it`,
  );
}

/** Writes a new token to the file. If several processes share the file, all of them return the token of the first. */
async function writeNew(file: string): Promise<NewToken> {
  const token = makeToken();
  const content = Buffer.from(`${token.text}\n`);
  try {
    try {
      await writeFileAtomically(file, content, { mode: 0o600, overwrite: false });
      return token;
    } catch (error) {
      if (errorCode(error) !== 'EEXIST') throw error;
    }
    const existing = await readExisting(file);
    if (existing) return existing;
    // The file exists and is empty: a container needs an existing file for a mount, and a mounted file can be written
    // to but not replaced.
    await fill(file, content);
    return (await readExisting(file)) ?? token;
  } catch (error) {
    if (error instanceof StartError) throw error;
    throw new StartError(
      `BOOTSTRAP_TOKEN_FILE ${file} cannot be written (${errorCode(error)}). Make its directory writable, or write the output of agentllm token generate to it`,
      { cause: error },
    );
  }
}

/**
 * Appends a line to an empty file. If several processes do so at the same time, the file keeps only the line that was
 * appended first.
 */
async function fill(path: string, line: Uint8Array): Promise<void> {
  // Without O_CREAT: another process may have removed the file.
  const file = await open(path, constants.O_WRONLY | constants.O_APPEND);
  try {
    await file.appendFile(line);
    const content = await readFile(path);
    const first = firstLineOf(content.toString());
    await file.truncate(content.indexOf(first) + first.length + 1);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** The first line that is not empty. */
const firstLineOf = (text: string): string =>
  text
    .replace(/^\ufeff/, '')
    .trim()
    .split(/\s*\n/, 1)[0] as string;
