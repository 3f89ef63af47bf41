import type { Server, TLSSocket, TlsOptions } from 'node:tls';
import { limits } from '../limits.js';
import type { Log } from '../log.js';
import { rememberPeer } from './peer_identity.js';
import { type Material, readFiles, type Snapshot, type TlsFiles, TlsFilesError } from './tls_files.js';

export interface TlsSettings extends TlsFiles {
  /** Whether a client needs a certificate, if authorities for client certificates are configured. */
  readonly TLS_CLIENT_CERT: 'required' | 'optional';
}

/** Polling interval of the files. They are small, and polling detects every kind of change. */
const POLL_MS = 2_000;
const DAY_MS = 86_400_000;
/** How long before its expiry the log warns of a certificate. */
const SOON_MS = 14 * DAY_MS;
/** The interval at which the log repeats the same reason for rejected connections. */
const REFUSALS_MS = 60_000;

/** TLS for the servers of the process. It reloads the certificates when their files change. */
export class ServerTls {
  private readonly servers = new Set<Server>();
  private readonly lastLogged = new Map<string, number>();
  private readonly timer: NodeJS.Timeout;
  private polling = Promise.resolve();
  /** The digest of the last invalid contents, and the problem that was logged for them. */
  private invalid = { digest: '', logged: '' };
  private lastWarning = Number.NEGATIVE_INFINITY;

  private constructor(
    private readonly settings: TlsSettings,
    private readonly log: Log,
    private digest: string,
    private material: Material,
    pollMs: number,
  ) {
    this.logCertificate('TLS is on');
    this.timer = setInterval(() => {
      this.polling = this.polling.then(() => this.poll());
    }, pollMs).unref();
  }

  /** Throws a TlsFilesError for files that cannot be used. */
  static async open(settings: TlsSettings, log: Log, pollMs = POLL_MS): Promise<ServerTls> {
    const snapshot = await readFiles(settings);
    return new ServerTls(settings, log, snapshot.digest, snapshot.check(new Date()), pollMs);
  }

  /** The expiry of the certificate. */
  get expires(): Date {
    return this.material.expires;
  }

  /** Whether a client must have a certificate. */
  get mutual(): boolean {
    return this.material.ca !== undefined && this.settings.TLS_CLIENT_CERT === 'required';
  }

  /** The options of a new server. */
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

  /** Updates the certificate of a server when the files change. The server must be created with `options`. */
  serve(server: Server): void {
    this.servers.add(server);
    server.once('close', () => this.servers.delete(server));
    // Runs before the listener of the server, which starts to use the socket.
    server.prependListener('secureConnection', (socket: TLSSocket) => {
      // No other listener handles an aborted connection: https://github.com/nodejs/node/issues/35824
      socket.on('error', () => {});
      socket.disableRenegotiation();
      if (this.material.ca) rememberPeer(socket);
    });
    server.on('tlsClientError', (error, socket) => this.logRejected(error, socket));
  }

  async close(): Promise<void> {
    clearInterval(this.timer);
    await this.polling;
  }

  private async poll(): Promise<void> {
    this.warnOfExpiry();
    const snapshot = await readFiles(this.settings);
    if (snapshot.digest === this.digest) return;
    try {
      this.use(snapshot.digest, snapshot.check(new Date()));
    } catch (error) {
      this.reject(snapshot, error as Error);
    }
  }

  private use(digest: string, material: Material): void {
    this.digest = digest;
    this.material = material;
    for (const server of this.servers) server.setSecureContext(this.options);
    this.lastWarning = Number.NEGATIVE_INFINITY;
    this.logCertificate('the certificate was reloaded and is in use for new connections');
  }

  /** Certificate and key are rarely replaced in one step, so a problem is logged only if it exists at two polls. */
  private reject({ digest }: Snapshot, error: Error): void {
    const problem = error instanceof TlsFilesError ? error.message : 'it cannot be used';
    const isNew = this.invalid.digest !== digest;
    if (!isNew && this.invalid.logged !== problem)
      this.log.error({ problem }, 'the new certificate cannot be used; the previous one stays in use');
    this.invalid = { digest, logged: isNew ? '' : problem };
  }

  private logCertificate(message: string): void {
    const { subject, fingerprint, expires } = this.material;
    this.log.info({ subject, fingerprint, expires }, message);
    this.warnOfExpiry();
  }

  private warnOfExpiry(): void {
    const now = Date.now();
    const { expires } = this.material;
    if (expires.getTime() - now > SOON_MS || now - this.lastWarning < DAY_MS) return;
    this.lastWarning = now;
    const file = this.settings.TLS_CERT_FILE;
    if (expires.getTime() > now) this.log.warn({ expires, file }, 'the certificate expires soon; replace it');
    else this.log.error({ expires, file }, 'the certificate has expired and clients reject it; replace it');
  }

  /** Logs why a connection was rejected. The client receives at most a TLS alert, so only the log has the reason. */
  private logRejected(error: Error & { code?: string }, socket: TLSSocket): void {
    const verificationError = socket.authorizationError as unknown as string | undefined;
    // Not logged: a port check, which disconnects during the handshake.
    if (!verificationError && error.code === 'ECONNRESET') return;
    const reason = verificationError ?? error.code ?? 'unknown';
    const now = performance.now();
    if (now - (this.lastLogged.get(reason) ?? Number.NEGATIVE_INFINITY) < REFUSALS_MS) return;
    this.lastLogged.set(reason, now);
    this.log.warn(
      { why: reason, from: socket.remoteAddress },
      'refused a connection; the same reason is logged once a minute',
    );
  }
}
