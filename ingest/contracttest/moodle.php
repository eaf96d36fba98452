<?php
// Asks a server what a list of requests says, each on a connection of its own, with the options that Moodle's curl class
// (lib/filelib.php) and its AirNotifier plugin set: a body that is an array goes out as multipart/form-data, one that is a string under
// the label of a form, and a new handle is made for each request.
//
//   php moodle.php REQUESTS.json https://127.0.0.1:8801 SECONDS
//
// Prints one answer as a line of JSON for each request: status, type, id, body, and the version of HTTP. SECONDS is the patience of a
// push; Moodle's is 2.

[, $file, $base, $patience] = $argv;
$kept = [];

foreach (json_decode(file_get_contents($file), true, 512, JSON_THROW_ON_ERROR) as $n => $request) {
    $headers = [];
    if ($request['app'] === null && $request['key'] === null && $request['method'] === 'GET') {
        $headers[] = 'Connection: keep-alive'; // the check page, which sends none of AirNotifier's headers
    } else {
        $headers[] = 'Accept: application/json';
    }
    foreach (['X-AN-APP-NAME' => $request['app'], 'X-AN-APP-KEY' => $request['key']] as $name => $value) {
        if ($value === null) {
            continue;
        }
        if ($value !== '' && $value[0] === '$') {
            $value = $kept[substr($value, 1)];
        }
        $headers[] = $value === '' ? "$name;" : "$name: $value"; // a semicolon is curl's way to send a header without a value
    }
    $headers = array_merge($headers, $request['headers']);

    $type = $id = '';
    $curl = curl_init($base . $request['path']);
    curl_setopt_array($curl, [
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_USERAGENT => 'MoodleBot/5.1 (+https://moodle.example.org)',
        CURLOPT_ENCODING => '',
        CURLOPT_FOLLOWLOCATION => false, // Moodle follows by itself, to look at each address
        // Over TLS a curl with nghttp2 speaks HTTP/2, as Debian's does, and one without it 1.1: both are asked for, in turns.
        CURLOPT_HTTP_VERSION => $n % 2 === 0 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1,
        CURLOPT_SSL_VERIFYPEER => false,
        CURLOPT_SSL_VERIFYHOST => 2,
        CURLOPT_CONNECTTIMEOUT => (int) $patience,
        CURLOPT_TIMEOUT => (int) $patience,
        CURLOPT_HTTPHEADER => $headers,
        CURLOPT_HEADERFUNCTION => function ($curl, $line) use (&$type, &$id) {
            [$name, $value] = array_pad(explode(':', $line, 2), 2, '');
            switch (strtolower($name)) {
                case 'content-type':
                    $type = trim($value);
                    break;
                case 'x-campanile-id':
                    $id = trim($value);
                    break;
            }
            return strlen($line);
        },
    ]);
    switch ($request['method']) {
        case 'GET':
            break;
        case 'POST':
            curl_setopt($curl, CURLOPT_POST, true);
            $body = $request['body'];
            if ($request['fields'] !== null) {
                $body = [];
                foreach ($request['fields'] as [$name, $value]) {
                    $body[$name] = $value;
                }
            }
            curl_setopt($curl, CURLOPT_POSTFIELDS, $body);
            break;
        default:
            curl_setopt($curl, CURLOPT_CUSTOMREQUEST, $request['method']);
    }
    $body = curl_exec($curl);
    $answer = [
        'status' => curl_getinfo($curl, CURLINFO_RESPONSE_CODE), 'type' => $type, 'id' => $id,
        'body' => $body === false ? '' : $body, 'error' => curl_error($curl), 'http' => curl_getinfo($curl, CURLINFO_HTTP_VERSION),
    ];
    curl_close($curl);
    if ($request['keep'] !== '') {
        $kept[$request['keep']] = json_decode($answer['body'], true)['accesskey'] ?? 'no key';
    }
    echo json_encode($answer, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE), "\n";
}
