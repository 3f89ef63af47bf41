import { type RunningCommand, startCommand } from '../support/command.js';
import { type Clients, connect } from '../support/service.js';
import type { Target } from './history.js';

/** The built service in a process of its own, which can be killed and started again. */
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

  /** kill -9; resolves when the process is gone. */
  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.command.ended;
  }

  /** Starts it again; returns after how many ms it was ready. */
  async restart(): Promise<number> {
    const started = performance.now();
    const command = await startCommand({ LOG_LEVEL: 'warn', ...this.env });
    const took = performance.now() - started;
    this.current.close();
    this.command = command;
    this.current = connect(command.port);
    return took;
  }

  /** Ends it as an operator does; returns the exit code. */
  async stop(): Promise<number | null> {
    this.signal('SIGTERM');
    const { code } = await this.command.ended;
    this.current.close();
    return code;
  }
}
