import type { Server, TLSSocket, TlsOptions } from 'node:tls';
import { limits } from '../limits.js';
import type { Log } from '../log.js';
import { rememberPeer } from './peer_identity.js';
import { type Material, readFiles, type Snapshot, type TlsFiles, TlsFilesError } from './tls_files.js';

export interface TlsSettings extends TlsFiles {
  /** Whether a client without a certificate is let in, where there are authorities for them. */
  readonly TLS_CLIENT_CERT: 'required' | 'optional';
}

/** How often the files are looked at. They are small, and reading them sees every way to change them. */
const LOOK_MS = 2_000;
const DAY_MS = 86_400_000;
/** How long before its end a certificate is warned of. */
const SOON_MS = 14 * DAY_MS;
/** How often the log has the same reason for which connections were refused. */
const REFUSALS_MS = 60_000;

/** TLS for the servers of the process, with the certificates that stand in the files now. */
export class ServerTls {
  private readonly servers = new Set<Server>();
  private readonly refusals = new Map<string, number>();
  private readonly timer: NodeJS.Timeout;
  private looking = Promise.resolve();
  /** The contents that could not be used, and what was told of them. */
  private faulty = { digest: '', told: '' };
  private warned = Number.NEGATIVE_INFINITY;

  private constructor(
    private readonly settings: TlsSettings,
    private readonly log: Log,
    private digest: string,
    private material: Material,
    lookMs: number,
  ) {
    this.tell('TLS is on');
    this.timer = setInterval(() => {
      this.looking = this.looking.then(() => this.look());
    }, lookMs).unref();
  }

  /** Throws a TlsFilesError for files that cannot be used. */
  static async open(settings: TlsSettings, log: Log, lookMs = LOOK_MS): Promise<ServerTls> {
    const snapshot = await readFiles(settings);
    return new ServerTls(settings, log, snapshot.digest, snapshot.check(new Date()), lookMs);
  }

  /** When the certificate ends. */
  get expires(): Date {
    return this.material.expires;
  }

  /** Whether a client must have a certificate of its own. */
  get mutual(): boolean {
    return this.material.ca !== undefined && this.settings.TLS_CLIENT_CERT === 'required';
  }

  /** What a server is made with. */
  get options(): TlsOptions {
    const { cert, key, ca } = this.material;
    return {
      cert,
      key,
      ca,
      minVersion: 'TLSv1.2',
      requestCert: ca !== undefined,
      rejectUnauthorized: this.mutual,
      handshakeTimeout: limits.tlsHandshakeMs,
    };
  }

  /** Keeps the certificate of a server that was made with the options up to date. */
  serve(server: Server): void {
    this.servers.add(server);
    server.once('close', () => this.servers.delete(server));
    // Before the server's own listener, which lets it be used.
    server.prependListener('secureConnection', (socket: TLSSocket) => {
      // What breaks off is told nowhere else: https://github.com/nodejs/node/issues/35824
      socket.on('error', () => {});
      socket.disableRenegotiation();
      if (this.material.ca) rememberPeer(socket);
    });
    server.on('tlsClientError', (error, socket) => this.refused(error, socket));
  }

  async close(): Promise<void> {
    clearInterval(this.timer);
    await this.looking;
  }

  private async look(): Promise<void> {
    this.warnOfTheEnd();
    const snapshot = await readFiles(this.settings);
    if (snapshot.digest === this.digest) return;
    try {
      this.use(snapshot.digest, snapshot.check(new Date()));
    } catch (error) {
      this.keep(snapshot, error as Error);
    }
  }

  private use(digest: string, material: Material): void {
    this.digest = digest;
    this.material = material;
    for (const server of this.servers) server.setSecureContext(this.options);
    this.warned = Number.NEGATIVE_INFINITY;
    this.tell('the certificate was read anew and is in use for new connections');
  }

  /** Certificate and key are rarely replaced in one step: what is wrong is told when it is so at two looks. */
  private keep({ digest }: Snapshot, error: Error): void {
    const problem = error instanceof TlsFilesError ? error.message : 'it cannot be used';
    const isNew = this.faulty.digest !== digest;
    if (!isNew && this.faulty.told !== problem)
      this.log.error({ problem }, 'the new certificate cannot be used; the one before stays in use');
    this.faulty = { digest, told: isNew ? '' : problem };
  }

  private tell(what: string): void {
    const { subject, fingerprint, expires } = this.material;
    this.log.info({ subject, fingerprint, expires }, what);
    this.warnOfTheEnd();
  }

  private warnOfTheEnd(): void {
    const now = Date.now();
    const { expires } = this.material;
    if (expires.getTime() - now > SOON_MS || now - this.warned < DAY_MS) return;
    this.warned = now;
    const file = this.settings.TLS_CERT_FILE;
    if (expires.getTime() > now) this.log.warn({ expires, file }, 'the certificate expires soon; put a new one there');
    else this.log.error({ expires, file }, 'the certificate has expired and clients refuse it; put a new one there');
  }

  /** The client hears of an alert at most, so here it is the only place where somebody can read why. */
  private refused(error: Error & { code?: string }, socket: TLSSocket): void {
    const verified = socket.authorizationError as unknown as string | undefined;
    // Whoever only looks whether the port is open goes away without a word.
    if (!verified && error.code === 'ECONNRESET') return;
    const why = verified ?? error.code ?? 'unknown';
    const now = performance.now();
    if (now - (this.refusals.get(why) ?? Number.NEGATIVE_INFINITY) < REFUSALS_MS) return;
    this.refusals.set(why, now);
    this.log.warn({ why, from: socket.remoteAddress }, 'refused a connection; the same reason is told once a minute');
  }
}
