import { type RunningCommand, startCommand } from '../support/command.js';
import { type Clients, connect } from '../support/service.js';
import type { Target } from './history.js';

/** The built service in its own process, which can be killed and restarted. */
export class ServerProcess implements Target {
  private constructor(
    readonly name: string,
    private readonly env: Readonly<Record<string, string>>,
    private command: RunningCommand & { readonly port: number },
    private current: Clients,
  ) {}

  static async start(name: string, env: Readonly<Record<string, string>>): Promise<ServerProcess> {
    const command = await startCommand({ LOG_LEVEL: 'warn', ...env });
    return new ServerProcess(name, env, command, connect(command.port));
  }

  get clients(): Clients {
    return this.current;
  }

  get port(): number {
    return this.command.port;
  }

  get pid(): number {
    return this.command.child.pid as number;
  }

  get output(): string {
    return this.command.output();
  }

  signal(signal: NodeJS.Signals): void {
    this.command.child.kill(signal);
  }

  /** kill -9; resolves when the process has exited. */
  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.command.ended;
  }

  /** Starts the process again; returns the time until it was ready, in ms. */
  async restart(): Promise<number> {
    const started = performance.now();
    const command = await startCommand({ LOG_LEVEL: 'warn', ...this.env });
    const took = performance.now() - started;
    this.current.close();
    this.command = command;
    this.current = connect(command.port);
    return took;
  }

  /** Stops the process with SIGTERM; returns the exit code. */
  async stop(): Promise<number | null> {
    this.signal('SIGTERM');
    const { code } = await this.command.ended;
    this.current.close();
    return code;
  }
}
