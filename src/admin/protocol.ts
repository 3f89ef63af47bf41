/**
 * The protocol of the admin socket. The client sends one line of JSON with the command. The service sends lines of JSON
 * with the output of the command; the last one has the exit code. An empty object means that the command still runs.
 */
import { join, resolve } from 'node:path';
import { z } from 'zod';

export const request = z.object({
  /** The command as on the command line: `migrate status`. */
  command: z.string().max(100),
  options: z.record(z.string(), z.unknown()).default({}),
});
export type AdminRequest = z.output<typeof request>;

export const response = z.object({
  out: z.string().optional(),
  err: z.string().optional(),
  exit: z.number().int().optional(),
});
export type AdminResponse = z.output<typeof response>;

/** The output of a command: a terminal, or the admin socket. */
export interface Output {
  /** Prints a line of the result to standard output. */
  out(text: string): void;
  /** Prints a line of progress or an error to standard error. */
  err(text: string): void;
}

/** The directory of the socket, which only its owner can access. */
export const adminDirectory = (dataDir: string): string => join(resolve(dataDir), '.admin');
export const ADMIN_SOCKET = 'admin.sock';

/** Interval of the empty messages while a command runs. */
export const HEARTBEAT_MS = 1_000;
