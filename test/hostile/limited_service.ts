/** Runs the service in a separate process with other limits: `LIMITS` is a JSON object of the changed ones. */
import { readSettings } from '../../src/config.js';
import { limits } from '../../src/limits.js';
import { createLog } from '../../src/log.js';
import { serve } from '../../src/main.js';

Object.assign(limits, JSON.parse(process.env['LIMITS'] ?? '{}'));
const settings = readSettings(process.env);
const flags = { allowPlaintext: false, allowAnonymous: false };
const running = await serve(settings, flags, createLog(settings.LOG_LEVEL));
process.stdout.write(`ports ${running.grpcPort} ${running.httpPort}\n`);
process.once('SIGTERM', () => void running.stop().then(() => process.exit()));
